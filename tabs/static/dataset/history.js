// Every edit, newest first: going back to any of them, and taking captions back to a moment.

import { esc, t, toast } from '../easel.js';
import { editWords, moment } from './words.js';

const asks = (d) => d.ask('history');

function html(d, answer) {
  if (!answer) return '';
  if (!answer.events.length) return `<p class="empty">${t('history.none')}</p>`;
  const now = answer.events.find((event) => event.state === 'done')?.seq ?? 0;
  const row = (e) => `<li data-key="${e.seq}" class="${e.state}"><small>${moment(e.time)}</small><span>${esc(editWords(e.title))}</span>
    ${e.seq === now ? `<small>${t('history.now')}</small>` : `<button data-act="travel" data-seq="${e.seq}">${t(e.state === 'done' ? 'history.back' : 'history.forth')}</button>`}
    <button data-act="restoreall" data-time="${e.time}">${t('history.captions')}</button></li>`;
  return `<p class="sub">${t('history.hint')}</p><ul class="ez-history">${answer.events.map(row).join('')}
    <li data-key="0" class="done"><small></small><span>${t('history.start')}</span>${now ? `<button data-act="travel" data-seq="0">${t('history.back')}</button>` : `<small>${t('history.now')}</small>`}</li></ul>`;
}

const verbs = {
  travel: (d, button) => d.change('travel', { seq: Number(button.dataset.seq) }),
  async restoreall(d, button) { const done = await d.change('restore_all', { time: Number(button.dataset.time) }); if (done) toast(t(done.changed ? 'dataset.applied' : 'dataset.nothing')); },
};

export const history = { name: 'history', asks, html, verbs };
