// <easel-start file="NAME">: the picture that Generate starts from: drop, upload, look at it, take it away. The file lies
// in the input folder; its name is the value of the gr.HTML around this part.

import { Live, ROOT, attempt, call, esc, t } from './easel.js';
import { viewUrl } from './job.js';

class Start extends Live {
  start() {
    // A new value comes as a new attribute, and Gradio takes away what was drawn here.
    this.watcher = new MutationObserver(() => { if (!this.firstElementChild) this.painted = null; this.draw(); });
    this.watcher.observe(this, { attributes: true, childList: true });
    this.on(this, 'change', (event) => { event.stopPropagation(); this.take(event.target.files[0]); });
    this.on(this, 'dragover', (event) => event.preventDefault());
    this.on(this, 'drop', (event) => { event.preventDefault(); event.stopPropagation(); this.take(event.dataTransfer.files[0]); });
    this.on(this, 'click', (event) => { if (event.target.closest('button')) this.tell('value', ''); });
  }

  close() { this.watcher.disconnect(); }

  async take(file) {
    if (!file) return;
    const form = new FormData();
    form.append('image', file);
    const kept = await attempt(call('upload/image', form, ROOT));
    if (kept) this.tell('value', kept.name);
  }

  draw() {
    const name = this.getAttribute('file');
    this.paint(`<span class="label">${t('generate.start')}</span>` + (name
      ? `<div class="ez-start"><img alt="${esc(name)}" src="${viewUrl({ filename: name, type: 'input' })}"><div><p class="sub">${esc(name)}</p><button type="button">${t('generate.start_none')}</button></div></div>`
      : `<label class="ez-file drop">${t('generate.start_choose')}<input type="file" accept="image/*"></label>`));
  }
}
customElements.define('easel-start', Start);
