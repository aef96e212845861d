// <easel-take of="tab-generate">: pictures dropped anywhere on that tab, and A1111's text pasted into it, fill its form.
// It shows nothing by itself.

import { Live, ROOT, attempt, call } from './easel.js';

export const PARAMETERS = /(^|\n)Steps: \d+, .*\bSampler: /;

class Take extends Live {
  start() {
    const tab = document.getElementById(this.getAttribute('of'));
    if (!tab) return;
    this.on(tab, 'paste', (event) => this.pasted(event));
    this.on(tab, 'dragover', (event) => { if (event.dataTransfer.types.includes('Files')) event.preventDefault(); });
    this.on(tab, 'drop', (event) => {
      const file = event.dataTransfer.files[0];
      if (!file || event.defaultPrevented) return;
      event.preventDefault();
      this.take(file);
    });
  }

  pasted(event) {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith('image/')), text = event.clipboardData.getData('text');
    if (!file && !PARAMETERS.test(text)) return;
    event.preventDefault();
    if (file) this.take(file);
    else this.tell('send', { name: 'text', text });
  }

  async take(file) {
    const form = new FormData();
    form.append('image', file);
    const kept = await attempt(call('upload/image', form, ROOT));
    if (kept) this.tell('send', { name: 'send', to: 'send.restore', filename: kept.name, subfolder: kept.subfolder, type: kept.type });
  }

  draw() {}
}
customElements.define('easel-take', Take);
