// What all live parts of the page share: language, words, calls to the server, one stream of events, one base class.
// It knows no tab. Every part is a custom element, so it works wherever its tag is put and survives being drawn again.

import { morph } from './morph.js';

export const BASE = new URL('..', import.meta.url).pathname;          // ".../studio/"
export const ROOT = new URL('../..', import.meta.url).pathname;       // where ComfyUI's routes answer
const words = await (await fetch(BASE + 'words.json')).json();

export const lang = () => ((document.documentElement.lang || navigator.language).startsWith('zh') ? 'zh' : 'en');

/** The words for a key in the page's language; {name} is replaced from values. An unknown key shows itself. */
export function t(key, values = {}) {
  const text = words[lang()][key] ?? words.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
}

/** The words for `group.name` where there are any, else the name as it is: node titles, metrics of other programs. */
export const named = (group, name) => (`${group}.${name}` in words.en ? t(`${group}.${name}`) : name);

/** Escapes text for HTML. */
export const esc = (text) => String(text ?? '').replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

export class ServerError extends Error {
  constructor(status, error) {
    super(error[lang()] ?? error.en ?? String(status));
    this.error = error;
  }
}

/** GET, or POST when there is a body (FormData for a file). Answers JSON; a refusal becomes a ServerError in the page's
 * language, no answer at all too. */
export async function call(path, body, base = BASE) {
  const form = body instanceof FormData;
  const answer = await fetch(base + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: body === undefined || form ? {} : { 'Content-Type': 'application/json' },
    body: body === undefined || form ? body : JSON.stringify(body),
  }).catch(() => { throw new ServerError(0, { en: t('worker.offline') }); });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ServerError(answer.status, json.error ?? { en: `HTTP ${answer.status}` });
  return json;
}

/** What is known of jobs and the worker, kept up to date by one event stream. Fires "change", "preview", "event". */
class Feed extends EventTarget {
  jobs = new Map();
  worker = { state: 'starting', phase: '' };
  previews = new Map();

  open() {
    if (this.source) return;
    this.source = new EventSource(BASE + 'stream');
    this.source.onmessage = (message) => this.take(JSON.parse(message.data));
    this.source.onerror = () => {
      this.worker = { state: 'offline' };
      this.say('change', {});
      if (this.source?.readyState === EventSource.CLOSED) { this.close(); setTimeout(() => this.open(), 3000); }
    };
  }

  close() { this.source?.close(); this.source = undefined; }

  take({ type, ...data }) {
    if (type === 'all') { this.jobs = new Map(data.jobs.map((job) => [job.id, job])); this.worker = data.worker; }
    if (type === 'job') this.jobs.set(data.job.id, data.job);
    if (type === 'gone') this.jobs.delete(data.id);
    if (type === 'worker') this.worker = data.worker;
    if (type === 'job' && ended(data.job)) this.previews.delete(data.job.id);
    if (type === 'preview') { this.previews.set(data.id, data); this.say('preview', data); return; }
    if (type === 'event' && data.event === 'easel_warning') { toast(data.data[lang()] ?? data.data.en, true); return; }
    if (type === 'event') { this.say('event', data); return; }
    this.say('change', data);
  }

  say(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }

  /** The newest job of these kinds: a running one before a waiting one before one that ended. */
  latest(kinds, wanted = () => true) {
    const rank = { running: 0, paused: 1, queued: 2 };
    return [...this.jobs.values()].filter((job) => kinds.includes(job.kind) && wanted(job))
      .sort((a, b) => (rank[a.state] ?? 3) - (rank[b.state] ?? 3) || b.created - a.created)[0];
  }
}
export const feed = new Feed();

// A browser opens six connections to a server, over all its windows: one that nobody sees gives its own back.
document.addEventListener('visibilitychange', () => { if (document.hidden) feed.close(); else feed.open(); });

/** Whether a job was sent from a page, this one or another window's, and not by a program with a token. */
export const fromPages = (job) => ['', 'local', 'owner'].includes(job.user ?? '');

export const ended = (job) => ['done', 'failed', 'cancelled', 'interrupted'].includes(job.state);

/** 75 -> "1:15", 3700 -> "1:01:40". */
export function clock(seconds) {
  const s = Math.round(seconds), h = Math.floor(s / 3600), m = Math.floor((s % 3600) / 60);
  const pad = (n) => String(n).padStart(2, '0');
  return h ? `${h}:${pad(m)}:${pad(s % 60)}` : `${m}:${pad(s % 60)}`;
}

/** 1536 -> "1.5 KiB". */
export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  while (n >= 1024 && i < 4) { n /= 1024; i++; }
  return `${n.toFixed(i && n < 100 ? 1 : 0)} ${units[i]}`;
}

/** Base of every live part: draw() once on the page, again when the language changes; close() when taken off. */
export class Live extends HTMLElement {
  connectedCallback() {
    this.aborter = new AbortController();
    feed.open();
    this.observer = new MutationObserver(() => this.draw());
    this.observer.observe(document.documentElement, { attributes: true, attributeFilter: ['lang'] });
    this.start?.();
    this.draw();
  }

  disconnectedCallback() { this.aborter.abort(); this.observer.disconnect(); this.close?.(); }

  /** Show this HTML, touching only what differs from what is shown. */
  paint(html, element = this) {
    if (html !== element.painted) { morph(element, html); element.painted = html; }
  }

  /** Listen while on the page. */
  on(target, name, handler) { target.addEventListener(name, handler, { signal: this.aborter.signal }); }

  /** Tell the tab's Python side, through the gr.HTML this part lies in. */
  tell(name, detail) { this.dispatchEvent(new CustomEvent('easel-' + name, { detail, bubbles: true })); }
}

let toastTimer;
/** A short message at the bottom of the page. */
export function toast(text, bad = false) {
  let box = document.querySelector('.ez-toast');
  if (!box) { box = document.createElement('div'); box.className = 'ez-toast'; box.role = 'status'; document.body.append(box); }
  box.textContent = text;
  box.classList.toggle('bad', bad);
  box.classList.add('on');
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove('on'), 6000);
}

/** Takes a complaint away: what it was about is being done anew. */
export function hush() { document.querySelector('.ez-toast.bad')?.classList.remove('on'); }

/** Runs a call and shows what went wrong, if it did. */
export async function attempt(promise) {
  try { return await promise; } catch (error) { toast(error.message, true); return undefined; }
}

/** Picture over the whole page; arrows go through the list, Escape closes. items: [{url, caption}], or what has its length and at(index). */
export function lightbox(items, index = 0, actions = []) {
  const box = document.createElement('dialog');
  box.className = 'ez-lightbox';
  const show = () => {
    const item = items.at(index);
    box.innerHTML = `<button class="x" aria-label="${t('close')}">✕</button><img alt="${esc(item.caption)}" src="${esc(item.url)}">
      <p>${esc(item.caption)}</p><div class="bar">${actions.map((a, i) => `<button data-i="${i}">${esc(t(a.key))}</button>`).join('')}</div>`;
    box.querySelector('.x').onclick = () => box.close();
    box.querySelectorAll('.bar button').forEach((b) => { b.onclick = () => { box.close(); actions[b.dataset.i].run(item); }; });
  };
  box.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { index = (index + step + items.length) % items.length; show(); }
  };
  box.onclick = (event) => { if (event.target === box) box.close(); };
  box.onclose = () => box.remove();
  document.body.append(box);
  show();
  box.showModal();
}
