// <easel-packs>: node packs of others: whether they are on, what each one brought, why one was not loaded.

import { call, esc, t } from './easel.js';
import { Polled } from './system.js';

const fold = (key, words, text) => `<details class="ez-more" data-key="${esc(key)}"><summary>${words}</summary><pre class="ez-log" tabindex="0">${esc(text)}</pre></details>`;

class Packs extends Polled {
  every = 5000;

  async load() {
    this.told = await call('packs').catch(() => this.told);
    this.draw();
  }

  draw() {
    if (!this.told) { this.paint('<p class="empty">…</p>'); return; }
    const { enabled, packs, folder, file } = this.told;
    const words = enabled ? t('packs.is_on', { folder: esc(folder), file: esc(file) }) : t('packs.is_off', { file: esc(file) });
    const off = '<pre class="ez-log" tabindex="0">[custom_nodes]\nenabled = true</pre>';
    const rows = packs?.length ? `<ul class="ez-packs">${packs.toSorted((a, b) => !!b.error - !!a.error).map((pack) => this.row(pack)).join('')}</ul>`
      : `<p class="sub">${t(packs ? 'packs.none' : 'packs.waiting')}</p>`;
    this.paint(`<h3>${t('packs.title')} <small class="state">${t(enabled ? 'packs.on' : 'packs.off')}</small></h3><p class="sub">${words}</p>${enabled ? rows : off}`);
  }

  row(pack) {
    const state = pack.error ? 'failed' : pack.off ? 'off' : 'loaded';
    const more = [
      pack.error && fold(`${pack.path} error`, t('packs.error'), pack.error),
      pack.problems.length && fold(`${pack.path} problems`, t('packs.problems', { n: pack.problems.length }), pack.problems.join('\n')),
      pack.nodes.length && fold(`${pack.path} nodes`, t('packs.list', { n: pack.nodes.length }), pack.nodes.join('\n')),
      pack.routes.length && fold(`${pack.path} routes`, t('packs.routes', { n: pack.routes.length }), pack.routes.join('\n')),
    ].filter(Boolean).join('');
    const about = pack.off || pack.error ? '' : ` · ${t('packs.nodes', { n: pack.nodes.length })} · ${t('packs.seconds', { n: pack.seconds.toFixed(2) })}`;
    return `<li data-key="${esc(pack.path)}"><b>${esc(pack.name)}</b> ${esc(pack.version)} <span class="${pack.error ? 'bad' : 'n'}">${t('packs.' + state)}${about}</span>${more}</li>`;
  }
}
customElements.define('easel-packs', Packs);
