// <easel-queue>: every job that waits or runs, in order, with buttons; below, those that ended.

import { Live, attempt, call, ended, esc, feed, named, t } from './easel.js';
import { jobHtml, listenForButtons, worker } from './job.js';

const belongs = (job, whose) => !whose || `user:${job.user}` === whose || `client:${job.client_id}` === whose;

/** Whose jobs are shown: by who sent them, or by the websocket client of a program. Nothing to choose with one of each. */
function whoseHtml(jobs, whose) {
  const users = [...new Set(jobs.map((job) => job.user).filter(Boolean))], clients = [...new Set(jobs.map((job) => job.client_id).filter(Boolean))];
  if (users.length + clients.length < 2 && !whose) return '';
  const option = (value, words) => `<option value="${esc(value)}" ${value === whose ? 'selected' : ''}>${esc(words)}</option>`;
  return `<div class="ez-bar"><label class="check">${t('queue.whose')}<select name="whose">${option('', t('queue.everybody'))}
    ${users.map((name) => option(`user:${name}`, named('user', name))).join('')}${clients.map((id) => option(`client:${id}`, t('queue.client', { id: id.slice(0, 12) }))).join('')}</select></label></div>`;
}

class Queue extends Live {
  start() {
    listenForButtons(this);
    this.on(feed, 'change', () => this.draw());
    this.on(this, 'change', (event) => { if (event.target.name === 'whose') { this.whose = event.target.value; this.draw(); } });
    this.on(this, 'click', (event) => {
      const mover = event.target.closest('button[data-move]');
      if (mover) attempt(call(`jobs/${mover.dataset.job}/move`, { before: mover.dataset.move }));
    });
  }

  draw() {
    const everybody = [...feed.jobs.values()], jobs = everybody.filter((job) => belongs(job, this.whose ?? ''));
    const order = { running: 0, paused: 1, queued: 2 };
    const active = jobs.filter((job) => !ended(job))
      .sort((a, b) => order[a.state] - order[b.state] || a.priority - b.priority || a.position - b.position);
    const past = jobs.filter(ended).sort((a, b) => (b.finished ?? 0) - (a.finished ?? 0)).slice(0, 100);
    const pair = (a, b) => a?.state === 'queued' && b?.state === 'queued' && a.priority === b.priority;
    const mover = (arrow, words, on, job, before) => `<button class="up" data-job="${job?.id ?? ''}" data-move="${before?.id ?? ''}"
      aria-label="${t(words)}" title="${t(words)}" ${on ? '' : 'disabled'}>${arrow}</button>`;
    const movers = (job, i) => (job.state === 'queued' && active.length > 1
      ? `<span class="movers">${mover('↑', 'queue.up', pair(active[i - 1], job), job, active[i - 1])}${mover('↓', 'queue.down', pair(job, active[i + 1]), active[i + 1], job)}</span>` : '');
    const row = (job, i) => `<li data-key="${job.id}">${movers(job, i)}${jobHtml(job, { pausable: job.kind !== 'generate' })}</li>`;
    this.paint(`${worker()}${whoseHtml(everybody, this.whose ?? '')}<h3>${t('queue.active')} (${active.length})</h3>
      <ol class="ez-queue">${active.map(row).join('') || `<li class="empty">${t('queue.none')}</li>`}</ol>
      ${past.length ? `<h3>${t('queue.past')}</h3><ol class="ez-queue past">${past.map((job) => `<li data-key="${job.id}">${jobHtml(job)}</li>`).join('')}</ol>` : ''}`);
  }
}
customElements.define('easel-queue', Queue);
