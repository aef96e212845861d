// Captions of two writers side by side, with a vote that is kept.

import { esc, t } from '../easel.js';
import { choice } from './fields.js';

const asks = (d) => d.ask('compare', { left: d.draft['compare.left'] ?? '', right: d.draft['compare.right'] ?? '' });

function pairHtml(d, pair) {
  const side = (one) => `<div class="side${pair.better === one.id ? ' better' : ''}"><p>${esc(one.text)}</p>
    <button data-act="vote" data-better="${one.id}" data-left="${pair.left.id}" data-right="${pair.right.id}" aria-pressed="${pair.better === one.id}">${t('compare.better')}</button></div>`;
  return `<li data-key="${pair.picture}"><img loading="lazy" src="${d.thumb(pair.picture, pair.hash)}" alt="${esc(pair.name)}">${side(pair.left)}${side(pair.right)}
    <button class="neither" data-act="vote" data-better="0" data-left="${pair.left.id}" data-right="${pair.right.id}" aria-pressed="${pair.better === 0}">${t('compare.neither')}</button></li>`;
}

function html(d, answer) {
  if (!answer) return '';
  if (answer.writers.length < 2) return `<p class="empty">${t('compare.none')}</p>`;
  const name = (w) => `${w.name === 'user' ? t('dataset.you') : w.name}${w.version ? ` · ${w.version.slice(0, 8)}` : ''} (${w.n})`;
  const options = answer.writers.map((w) => [w.id, name(w)]), { tally } = answer;
  const adopt = (id, side) => `<button type="button" data-act="adopt" data-source="${id}">${t(`compare.adopt.${side}`)}</button>`;
  return `<form data-keep="compare" class="ez-form-row">${choice('left', t('compare.left'), options, answer.left, 'data-change="comparewith"')}${choice('right', t('compare.right'), options, answer.right, 'data-change="comparewith"')}</form>
    <p>${t('compare.tally', tally)}</p><div class="ez-bar">${adopt(answer.left, 'left')}${adopt(answer.right, 'right')}</div><ul class="ez-pairs">${answer.pairs.map((pair) => pairHtml(d, pair)).join('')}</ul>`;
}

const verbs = {
  comparewith: (d) => d.inquire(),
  async vote(d, button) {
    const { left, right, better } = button.dataset, taken = button.getAttribute('aria-pressed') === 'true';
    await d.change('vote', { left: Number(left), right: Number(right), better: taken ? null : Number(better) });
  },
  adopt: (d, button) => d.change('restore_all', { source: Number(button.dataset.source), pictures: d.ids.length > 1 ? d.ids : [] }),
};

export const compare = { name: 'compare', asks, html, verbs };
