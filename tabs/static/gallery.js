// <easel-gallery>: every picture made, newest first; one opens with what it was made from, and can be sent on.
// A picture dropped on it is read and its settings are restored.

import { BASE, Live, ROOT, attempt, bytes, call, esc, feed, lightbox, t } from './easel.js';
import { viewUrl } from './job.js';
import { VirtualGrid } from './virtual.js';

class Gallery extends Live {
  pictures = [];

  start() {
    this.innerHTML = `<div class="ez-bar"><input type="search"><span class="n"></span></div>
      <div class="ez-two"><div class="box"></div><aside></aside></div>`;
    this.grid = new VirtualGrid(this.querySelector('.box'), {
      cell: 170, signal: this.aborter.signal, key: (i) => esc(`${this.pictures[i].subfolder}/${this.pictures[i].filename}`),
      render: (i) => `<img loading="lazy" alt="${esc(this.pictures[i].filename)}" src="${this.thumb(this.pictures[i])}">`,
      picked: (i, selected) => selected.size && this.choose(i), opened: (i) => this.open(i),
    });
    this.on(this.querySelector('input'), 'input', () => { clearTimeout(this.wait); this.wait = setTimeout(() => this.load(), 250); });
    this.on(feed, 'event', () => { clearTimeout(this.wait); this.wait = setTimeout(() => this.load(), 400); });
    this.grid.box.setAttribute('aria-label', t('tab.gallery'));
    this.on(this, 'dragover', (event) => event.preventDefault());
    this.on(this, 'drop', (event) => { event.preventDefault(); if (event.dataTransfer.files[0]) this.restore(event.dataTransfer.files[0]); });
    this.on(this, 'click', (event) => {
      const to = event.target.closest('button[data-send]')?.dataset.send;
      if (to) this.tell('send', { name: 'send', to, ...this.chosen });
    });
    this.load();
  }

  thumb(picture) { return `${BASE}thumb?${new URLSearchParams({ ...this.address(picture), v: picture.mtime })}`; }

  address({ filename, subfolder, type }) { return { filename, subfolder, type }; }

  async load() {
    const answer = await attempt(call(`pictures?q=${encodeURIComponent(this.querySelector('input').value)}`));
    if (!answer) return;
    this.pictures = answer.pictures;
    const at = this.pictures.findIndex((p) => p.filename === this.chosen?.filename && p.subfolder === this.chosen?.subfolder);
    this.grid.selected = new Set(at < 0 ? [] : [at]);
    this.grid.set(this.pictures.length);
    this.draw();
  }

  async choose(i) {
    this.chosen = this.address(this.pictures[i]);
    const info = await attempt(call(`picture?${new URLSearchParams(this.chosen)}`));
    if (!info) return;
    const row = (key, value) => `<dt>${t(key)}</dt><dd>${esc(value)}</dd>`;
    this.querySelector('aside').innerHTML = `<img src="${viewUrl(this.chosen)}" alt="${esc(this.chosen.filename)}">
      <div class="ez-bar"><button class="primary" data-send="send.restore">${t('send.restore')}</button>
      <button data-send="send.img2img">${t('send.img2img')}</button><button data-send="send.graph">${t('send.graph')}</button>
      <a href="${viewUrl(this.chosen)}" download="${esc(this.chosen.filename)}">${t('download')}</a></div>
      <dl>${row('gallery.file', this.chosen.filename)}${row('gallery.size', `${info.width} × ${info.height}, ${bytes(info.bytes)}`)}</dl>
      <pre>${esc(info.parameters ?? t('gallery.noparameters'))}</pre>`;
  }

  open(i) {
    const send = (key) => ({ key, run: (item) => this.tell('send', { name: 'send', to: key, ...item.address }) });
    lightbox(this.pictures.map((p) => ({ url: viewUrl(p), caption: p.filename, address: this.address(p) })), i, [send('send.restore'), send('send.img2img'), send('send.graph')]);
  }

  async restore(file) {
    const form = new FormData();
    form.append('image', file);
    const kept = await attempt(call('upload/image', form, ROOT));
    if (kept) this.tell('send', { name: 'send', to: 'send.restore', filename: kept.name, subfolder: kept.subfolder, type: kept.type });
  }

  draw() {
    this.querySelector('input').placeholder = t('gallery.search');
    this.querySelector('input').setAttribute('aria-label', t('gallery.search'));
    this.querySelector('.n').textContent = t('gallery.count', { n: this.pictures.length });
    if (!this.chosen) this.querySelector('aside').innerHTML = `<p class="empty">${t(this.pictures.length ? 'gallery.hint' : this.querySelector('input').value ? 'gallery.nomatch' : 'gallery.none')}</p>`;
  }
}
customElements.define('easel-gallery', Gallery);
