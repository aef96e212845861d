// <easel-job kinds="train">: the running (or newest) job of some kinds: phase, bar, ETA, its buttons, its error.
// <easel-result kinds="generate">: the same with the live preview and, when done, the pictures.

import { Live, ROOT, attempt, call, clock, ended, esc, feed, fromPages, lang, lightbox, named, t } from './easel.js';

const BUTTONS = {
  queued: ['cancel'], running: ['pause', 'cancel'], paused: ['resume', 'cancel'],
  interrupted: ['retry'], failed: ['retry'], cancelled: ['retry'], done: [],
};

/** Words under the bar: step, speed, loss, time left. */
export function progressWords(job) {
  const p = job.progress ?? {}, parts = [];
  if (p.total) parts.push(`${p.step} / ${p.total}`);
  for (const [name, value] of Object.entries(p.metrics ?? {})) parts.push(`${named('metric', name)} ${Number(Number(value).toPrecision(4))}`);
  if (p.text && !Object.keys(p.metrics ?? {}).some((name) => p.text.startsWith(name))) parts.push(p.text);
  if (job.state === 'running' && p.eta != null) parts.push(t('job.left', { time: clock(p.eta) }));
  return parts.join(' · ');
}

/** When a job began and how long it took. */
function endedWords(job) {
  const words = [t('kind.' + job.kind), new Date(1000 * (job.started ?? job.created)).toLocaleString(lang() === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'medium', timeStyle: 'short' })];
  if (job.started && job.finished) words.push(t('job.took', { time: clock(job.finished - job.started) }));
  return words.join(' · ');
}

export function jobHtml(job, { pausable = true } = {}) {
  const p = job.progress ?? {};
  const percent = job.state === 'done' ? 100 : p.total ? Math.min(100, (100 * p.step) / p.total) : 0;
  const phase = job.state === 'running' && p.phase ? named('phase', p.phase) : t('state.' + job.state);
  const buttons = BUTTONS[job.state].filter((b) => pausable || b !== 'pause');
  const busy = job.state === 'running' && !p.total ? ' busy' : '';
  return `<div class="ez-job ${job.state}" data-id="${esc(job.id)}" data-key="${esc(job.id)}">
    <div class="line"><b>${esc(job.title || t('kind.' + job.kind))}</b><span class="state">${esc(phase)}</span>${job.user ? `<span class="state who">${esc(named('user', job.user))}</span>` : ''}
      <span class="grow"></span>${buttons.map((b) => `<button data-do="${b}">${t('do.' + b)}</button>`).join('')}</div>
    ${['done', 'cancelled'].includes(job.state) ? '' : `<div class="track${busy}" role="progressbar" aria-valuenow="${Math.round(percent)}" aria-valuemin="0"
      aria-valuemax="100" aria-label="${esc(job.title || t('kind.' + job.kind))}"><i style="width:${percent}%"></i></div>`}
    <small>${esc(ended(job) ? endedWords(job) : progressWords(job))}</small>${errorHtml(job)}</div>`;
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
  const [what = '', ...which] = (phase ?? '').split(': ');
  const doing = [[what && named('phase', what), ...which].join(': '), seconds ? `${seconds} s` : ''].filter(Boolean).join(' · ');
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
    this.paint(worker() + (job ? jobHtml(job, { pausable: job.kind !== 'generate' }) : ''));
  }
}
customElements.define('easel-job', Job);

/** {filename, subfolder, type} of ComfyUI's answers -> address. */
export function viewUrl(image) {
  return `${ROOT}view?${new URLSearchParams({ filename: image.filename, subfolder: image.subfolder ?? '', type: image.type ?? 'output' })}`;
}

function download(image) {
  const link = document.createElement('a');
  Object.assign(link, { href: viewUrl(image), download: image.filename }).click();
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
      const image = event.target.closest('button[data-i]'), send = event.target.closest('button[data-send]');
      if (image) this.open(Number(image.dataset.i));
      if (send) this.send(send.dataset.send, picturesOf(this.pictures)[0]);
    });
  }

  send(key, image) { this.tell('send', { name: 'send', to: key, ...image }); }

  open(index) {
    const images = picturesOf(this.pictures), send = (key) => ({ key, run: (item) => this.send(key, item.image) });
    lightbox(images.map((image) => ({ url: viewUrl(image), caption: image.filename, image })), index,
      [send('send.img2img'), send('send.restore'), send('send.graph'), { key: 'download', run: (item) => download(item.image) }]);
  }

  draw() {
    const kinds = (this.getAttribute('kinds') ?? 'generate').split(' ');
    this.job = feed.latest(kinds, fromPages);
    const done = [...feed.jobs.values()].filter((job) => kinds.includes(job.kind) && fromPages(job) && picturesOf(job).length);
    this.pictures = this.job && picturesOf(this.job).length ? this.job : done.sort((a, b) => b.created - a.created)[0];
    const live = this.job && !ended(this.job) ? feed.previews.get(this.job.id) : undefined;
    const images = live ? [] : picturesOf(this.pictures), title = this.pictures?.title ?? '';
    this.paint(worker() + (this.job ? jobHtml(this.job, { pausable: false }) : '')
      + `<div class="ez-result n${Math.min(images.length, 4)}">`
      + (live ? `<img class="live" alt="${t('preview')}" src="data:image/jpeg;base64,${live.jpeg}">` : '')
      + images.map((image, i) => `<button class="pic" data-i="${i}" data-key="${esc(image.filename)}"><img alt="${esc(title || image.filename)}" src="${viewUrl(image)}"></button>`).join('')
      + (!live && !images.length ? `<p class="empty">${t('generate.empty')}</p>` : '') + '</div>'
      + (images.length === 1 ? `<div class="ez-bar"><button data-send="send.img2img">${t('send.img2img')}</button>
        <button data-send="send.restore">${t('send.restore')}</button><button data-send="send.graph">${t('send.graph')}</button><a href="${viewUrl(images[0])}" download="${esc(images[0].filename)}">${t('download')}</a></div>` : ''));
  }
}
customElements.define('easel-result', Result);
