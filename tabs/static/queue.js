// <easel-queue>: every job that waits or runs, in order, with buttons; below, those that ended.

import { Live, attempt, call, ended, feed, t } from './easel.js';
import { jobHtml, listenForButtons, worker } from './job.js';

class Queue extends Live {
  start() {
    listenForButtons(this);
    this.on(feed, 'change', () => this.draw());
    this.on(this, 'click', (event) => {
      const mover = event.target.closest('button[data-move]');
      if (mover) attempt(call(`jobs/${mover.dataset.id}/move`, { before: mover.dataset.move }));
    });
  }

  draw() {
    const jobs = [...feed.jobs.values()];
    const order = { running: 0, paused: 1, queued: 2 };
    const active = jobs.filter((job) => !ended(job))
      .sort((a, b) => order[a.state] - order[b.state] || a.priority - b.priority || a.position - b.position);
    const past = jobs.filter(ended).sort((a, b) => (b.finished ?? 0) - (a.finished ?? 0)).slice(0, 100);
    const row = (job, i) => {
      const above = active[i - 1];
      const up = job.state === 'queued' && above?.state === 'queued' && above.priority === job.priority
        ? `<button class="up" data-id="${job.id}" data-move="${above.id}" aria-label="${t('queue.up')}">↑</button>` : '';
      return `<li>${up}${jobHtml(job, { pausable: job.kind !== 'generate' })}</li>`;
    };
    const html = `${worker()}<h3>${t('queue.active')} (${active.length})</h3>
      <ol class="ez-queue">${active.map(row).join('') || `<li class="empty">${t('queue.none')}</li>`}</ol>
      <h3>${t('queue.past')}</h3><ol class="ez-queue past">${past.map((job) => `<li>${jobHtml(job)}</li>`).join('')}</ol>`;
    if (html !== this.shown) { this.innerHTML = html; this.shown = html; }
  }
}
customElements.define('easel-queue', Queue);
