// <easel-job kinds="train">: the running (or newest) job of some kinds: phase, bar, ETA, its buttons, its error.
// <easel-result kinds="generate">: the same with the live preview and, when done, the pictures.

import { Live, ROOT, attempt, call, clock, ended, esc, feed, lang, lightbox, named, t } from './easel.js';

const BUTTONS = {
  queued: ['cancel'], running: ['pause', 'cancel'], paused: ['resume', 'cancel'],
  interrupted: ['retry'], failed: ['retry'], cancelled: ['retry'], done: [],
};

/** Words under the bar: step, speed, loss, time left. */
export function progressWords(job) {
  const p = job.progress ?? {}, parts = [];
  if (p.total) parts.push(`${p.step} / ${p.total}`);
  for (const [name, value] of Object.entries(p.metrics ?? {})) parts.push(`${named('metric', name)} ${Number(value).toPrecision(4)}`);
  if (p.text) parts.push(p.text);
  if (job.state === 'running' && p.eta != null) parts.push(t('job.left', { time: clock(p.eta) }));
  return parts.join(' · ');
}

export function jobHtml(job, { pausable = true } = {}) {
  const p = job.progress ?? {};
  const percent = job.state === 'done' ? 100 : p.total ? Math.min(100, (100 * p.step) / p.total) : 0;
  const phase = job.state === 'running' && p.phase ? named('phase', p.phase) : t('state.' + job.state);
  const buttons = BUTTONS[job.state].filter((b) => pausable || b !== 'pause');
  const busy = job.state === 'running' && !p.total ? ' busy' : '';
  return `<div class="ez-job ${job.state}" data-id="${esc(job.id)}">
    <div class="line"><b>${esc(job.title || t('kind.' + job.kind))}</b><span class="state">${esc(phase)}</span>
      <span class="grow"></span>${buttons.map((b) => `<button data-do="${b}">${t('do.' + b)}</button>`).join('')}</div>
    <div class="track${busy}" role="progressbar" aria-valuenow="${Math.round(percent)}" aria-valuemin="0" aria-valuemax="100"
      aria-label="${esc(job.title || job.kind)}"><i style="width:${percent}%"></i></div>
    <small>${esc(progressWords(job))}</small>${errorHtml(job)}</div>`;
}

function errorHtml(job) {
  if (!job.error || !['failed', 'interrupted'].includes(job.state)) return '';
  const details = job.error.traceback ? `<details><summary>${t('job.details')}</summary><pre>${esc(job.error.traceback)}</pre></details>` : '';
  return `<p class="bad">${esc(job.error[lang()] ?? job.error.en)}</p>${details}`;
}

/** Clicks on buttons with data-do inside an element with data-id. */
export function listenForButtons(part) {
  part.on(part, 'click', (event) => {
    const button = event.target.closest('button[data-do]');
    if (button) attempt(call(`jobs/${button.closest('[data-id]').dataset.id}/${button.dataset.do}`, {}));
  });
}

/** A line about the worker while it is not ready: what it does, for how long, or why it does not start. */
export const worker = () => {
  const { state, phase, seconds, error } = feed.worker;
  if (state === 'ready') return '';
  const doing = [phase, seconds ? `${seconds} s` : ''].filter(Boolean).join(' · ');
  return `<p class="ez-worker" role="status">${t('worker.' + state)} ${esc(doing)} ${esc(error?.[lang()] ?? '')}</p>`;
};

class Job extends Live {
  start() {
    listenForButtons(this);
    this.on(feed, 'change', () => this.draw());
  }

  get kinds() { return (this.getAttribute('kinds') ?? 'generate').split(' '); }

  draw() {
    const job = feed.latest(this.kinds);
    const html = worker() + (job ? jobHtml(job, { pausable: job.kind !== 'generate' }) : '');
    if (html !== this.shown) { this.innerHTML = html; this.shown = html; }
  }
}
customElements.define('easel-job', Job);

/** {filename, subfolder, type} of ComfyUI's answers -> address. */
export function viewUrl(image) {
  return `${ROOT}view?${new URLSearchParams({ filename: image.filename, subfolder: image.subfolder ?? '', type: image.type ?? 'output' })}`;
}

export function picturesOf(job) {
  return Object.values(job?.result?.outputs ?? {}).flatMap((output) => output.images ?? []);
}

class Result extends Live {
  start() {
    listenForButtons(this);
    this.on(feed, 'change', () => this.draw());
    this.on(feed, 'preview', (event) => { if (event.detail.id === this.job?.id) this.draw(); });
    this.on(this, 'click', (event) => {
      const image = event.target.closest('img[data-i]');
      if (image) this.open(Number(image.dataset.i));
    });
  }

  open(index) {
    const images = picturesOf(this.pictures);
    const send = (key) => ({ key, run: (item) => this.tell('send', { name: 'send', to: key, ...item.image }) });
    lightbox(images.map((image) => ({ url: viewUrl(image), caption: image.filename, image })), index,
      [send('send.img2img'), send('send.restore'), { key: 'download', run: (item) => window.open(item.url) }]);
  }

  draw() {
    const kinds = (this.getAttribute('kinds') ?? 'generate').split(' ');
    this.job = feed.latest(kinds);
    const done = [...feed.jobs.values()].filter((job) => kinds.includes(job.kind) && picturesOf(job).length);
    this.pictures = this.job && picturesOf(this.job).length ? this.job : done.sort((a, b) => b.created - a.created)[0];
    const live = this.job && !ended(this.job) ? feed.previews.get(this.job.id) : undefined;
    const images = live ? [] : picturesOf(this.pictures);
    const html = worker() + (this.job ? jobHtml(this.job, { pausable: false }) : '')
      + `<div class="ez-result n${Math.min(images.length, 4)}">`
      + (live ? `<img class="live" alt="${t('preview')}" src="data:image/jpeg;base64,${live.jpeg}">` : '')
      + images.map((image, i) => `<img data-i="${i}" tabindex="0" alt="${esc(image.filename)}" src="${viewUrl(image)}">`).join('')
      + (!live && !images.length ? `<p class="empty">${t('generate.empty')}</p>` : '') + '</div>';
    if (html !== this.shown) { this.innerHTML = html; this.shown = html; }
  }
}
customElements.define('easel-result', Result);
