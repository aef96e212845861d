// <easel-tokens>: API tokens for programs. A new one is shown once, with how it is sent.

import { Live, attempt, call, esc, lang, t, toast } from './easel.js';

class Tokens extends Live {
  start() {
    this.on(this, 'submit', (event) => { event.preventDefault(); this.make(event.target); });
    this.on(this, 'click', (event) => {
      const revoke = event.target.closest('button[data-revoke]'), copy = event.target.closest('button[data-copy]');
      if (revoke) this.change(call(`tokens/${revoke.dataset.revoke}/revoke`, {}));
      if (copy) this.copy();
      if (event.target.closest('button[data-out]')) attempt(fetch('/logout', { method: 'POST' }).then(() => { location.href = '/'; }));
    });
    this.seen = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) this.change(call('tokens')); });
    this.seen.observe(this);
  }

  close() { this.seen.disconnect(); }

  async change(asked) {
    const told = await attempt(asked);
    if (told) { this.rows = told.tokens; this.signed = told.signed_in ?? this.signed; }
    this.draw();
    return told;
  }

  async make(form) {
    const name = new FormData(form).get('name');
    const told = await this.change(call('tokens', { name }));
    if (!told) return;
    this.made = { name, token: told.token };
    form.reset();
    this.draw();
  }

  /** Browsers hide the clipboard from pages that came by plain HTTP: there the selection is copied. */
  async copy() {
    if (navigator.clipboard) await attempt(navigator.clipboard.writeText(this.made.token));
    else {
      getSelection().selectAllChildren(this.querySelector('code.token'));
      document.execCommand('copy');
    }
    toast(t('tokens.copied'));
  }

  draw() {
    const day = (seconds) => new Date(1000 * seconds).toLocaleDateString(lang() === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'medium' });
    const row = (one) => `<tr data-key="${esc(one.id)}"><td><b>${esc(one.name)}</b></td><td>${day(one.created)}</td><td><button data-revoke="${esc(one.id)}">${t('tokens.revoke')}</button></td></tr>`;
    const made = this.made ? `<div class="ez-card"><p>${t('tokens.once', { name: esc(this.made.name) })}</p><p><code class="token">${esc(this.made.token)}</code> <button data-copy="1">${t('tokens.copy')}</button></p>
      <p class="sub">Authorization: Bearer … · X-API-Key: … · ws://…/ws?token=…</p></div>` : '';
    this.paint(`<h3>${t('tokens.title')}</h3><p class="sub">${t('tokens.hint')}</p>${made}
      <form class="ez-bar"><input type="text" name="name" required maxlength="60" placeholder="${t('tokens.name')}" aria-label="${t('tokens.name')}"><button class="primary">${t('tokens.make')}</button></form>
      ${this.rows?.length ? `<div class="ez-scroll"><table class="ez-table">${this.rows.map(row).join('')}</table></div>` : `<p class="sub">${t('tokens.none')}</p>`}
      ${this.signed ? `<div class="ez-bar"><button data-out="1">${t('tokens.out')}</button></div>` : ''}`);
  }
}
customElements.define('easel-tokens', Tokens);
