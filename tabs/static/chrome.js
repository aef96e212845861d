// The edges of the page: language and theme switches, the state of the worker, going to a tab by name.

import { Live, feed, lang, t } from './easel.js';

const go = (change) => { const url = new URL(location.href); change(url); location.href = url.href; };

const TAB = 'easel.tab';
const tabButton = (name) => document.querySelector(`#ez-tabs button[role=tab][data-tab-id="${name}"]`);

class Switches extends Live {
  start() {
    this.reopen(sessionStorage.getItem(TAB));
    this.on(feed, 'change', () => this.draw());
    this.on(this, 'click', (event) => {
      const what = event.target.closest('button')?.dataset.what;
      if (what === 'lang') {
        document.cookie = `easel_lang=${lang() === 'zh' ? 'en' : 'zh-CN'}; path=/; max-age=31536000; SameSite=Lax`;
        go((url) => url.searchParams.delete('lang'));
      }
      if (what === 'queue') this.tell('send', { name: 'open', tab: 'queue' });
      if (what === 'theme') go((url) => url.searchParams.set('__theme', document.body.classList.contains('dark') ? 'light' : 'dark'));
    });
  }

  /** A reload, and a switch of language or theme, come back to the tab that was open. */
  reopen(name, left = 20) {
    const open = document.querySelector('#ez-tabs button[role=tab][aria-selected=true]');
    if (name && left && !open) { setTimeout(() => this.reopen(name, left - 1), 100); return; }
    if (name && open && open.dataset.tabId !== name) { if (tabButton(name)) tabButton(name).click(); else this.tell('send', { name: 'open', tab: name }); }
    const keep = () => { const at = document.querySelector('#ez-tabs button[role=tab][aria-selected=true]')?.dataset.tabId; if (at) sessionStorage.setItem(TAB, at); };
    const tabs = document.querySelector('#ez-tabs');
    if (tabs) new MutationObserver(keep).observe(tabs, { subtree: true, attributeFilter: ['aria-selected'] });
  }

  draw() {
    // Gradio's refusals are headed "Error" whatever their title is: easel.css shows this instead.
    document.documentElement.style.setProperty('--ez-refused', JSON.stringify(t('refused')));
    const dark = document.body.classList.contains('dark');
    const running = [...feed.jobs.values()].filter((job) => ['running', 'queued'].includes(job.state)).length;
    const state = t('worker.' + feed.worker.state);
    this.paint(`<span class="dot ${feed.worker.state}" role="img" title="${state}" aria-label="${state}"></span>
      ${running ? `<button data-what="queue">${t('jobs.running', { n: running })}</button>` : ''}
      <button data-what="lang" aria-label="${t('switch.lang')}">${lang() === 'zh' ? 'EN' : '中文'}</button>
      <button data-what="theme" aria-label="${t('switch.theme')}">${dark ? '☀' : '☾'}</button>`);
  }
}
customElements.define('easel-switches', Switches);
