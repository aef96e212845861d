// The edges of the page: language and theme switches, the state of the worker, going to a tab by name.

import { Live, feed, lang, t } from './easel.js';

const go = (change) => { const url = new URL(location.href); change(url); location.href = url.href; };

class Switches extends Live {
  start() {
    this.on(feed, 'change', () => this.draw());
    this.on(this, 'click', (event) => {
      const what = event.target.closest('button')?.dataset.what;
      if (what === 'lang') {
        document.cookie = `easel_lang=${lang() === 'zh' ? 'en' : 'zh-CN'}; path=/; max-age=31536000; SameSite=Lax`;
        go((url) => url.searchParams.delete('lang'));
      }
      if (what === 'theme') go((url) => url.searchParams.set('__theme', document.body.classList.contains('dark') ? 'light' : 'dark'));
    });
  }

  draw() {
    const dark = document.body.classList.contains('dark');
    const running = [...feed.jobs.values()].filter((job) => ['running', 'queued'].includes(job.state)).length;
    const html = `<span class="dot ${feed.worker.state}" title="${t('worker.' + feed.worker.state)}"></span>
      <span class="count">${running ? t('jobs.running', { n: running }) : ''}</span>
      <button data-what="lang" aria-label="${t('switch.lang')}">${lang() === 'zh' ? 'EN' : '中文'}</button>
      <button data-what="theme" aria-label="${t('switch.theme')}">${dark ? '☀' : '☾'}</button>`;
    if (html !== this.shown) { this.innerHTML = html; this.shown = html; }
  }
}
customElements.define('easel-switches', Switches);
