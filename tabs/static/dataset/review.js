// How often each tagger was right by the user's own decisions, which thresholds would fit them better, how far taggers
// agree; and the queue that shows the pictures first on which they do not.

import { esc, t, toast } from '../easel.js';
import { table } from './fields.js';
import { percent } from './words.js';

const asks = (d) => d.ask('review');
const share = (value, of) => `<td>${of ? percent(value) : '—'}</td>`; // of nothing there is no share
const cells = (s) => `<td>${s.accepted}</td><td>${s.rejected}</td><td>${s.missed}</td>${share(s.precision, s.accepted + s.rejected)}${share(s.recall, s.accepted + s.missed)}${share(s.f1, s.accepted + s.rejected + s.missed)}${share(s.miss_rate, s.accepted + s.missed)}`;

function taggerHtml(one) {
  const head = ['', ...['accepted', 'rejected', 'missed', 'precision', 'recall', 'f1', 'miss'].map((name) => t(`review.${name}`))];
  const all = `<tr class="all" data-key=""><td>${t('review.all')}</td>${cells(one.overall)}</tr>`;
  const rows = one.tags.map((s) => `<tr data-key="${esc(s.name)}"><td><a href="#" role="button" data-filter="${esc(s.filter)}">${esc(s.shown)}</a></td>${cells(s)}</tr>`);
  return `<section class="ez-card" data-key="r${one.id}"><h4>${esc(one.name)}</h4>${one.tags.length ? table(head, [all, ...rows]) : `<p class="sub">${t('review.nothing')}</p>`}${suggestionsHtml(one)}</section>`;
}

function suggestionsHtml(one) {
  if (!one.suggestions.length) return '';
  const row = (s) => `<tr data-key="${esc(s.name)}"><td><label class="check"><input type="checkbox" name="tag" value="${esc(s.name)}" checked>${esc(s.shown)}</label></td>
    <td>${s.now} → <b>${s.proposed}</b></td><td>${percent(s.f1_now)} → <b>${percent(s.f1_then)}</b></td><td>${s.support}</td></tr>`;
  const head = [t('review.tag'), t('review.threshold'), 'F1', t('review.support')];
  return `<form data-act="suggestions"><h4>${t('review.suggestions', { n: one.suggestions.length })}</h4><input type="hidden" name="source" value="${one.id}">
    ${table(head, one.suggestions.map(row))}<div class="ez-bar"><button class="primary">${t('review.take')}</button></div></form>`;
}

function html(d, answer) {
  if (!answer) return '';
  const agreement = answer.agreement.length ? `<section class="ez-card" data-key="agreement"><h4>${t('review.agreement')}</h4><ul class="ez-list">${answer.agreement.map(([a, b, share]) =>
    `<li>${esc(a)} · ${esc(b)}: <b>${percent(share)}</b></li>`).join('')}</ul><p class="sub">${t('review.agreementhint')}</p></section>` : '';
  return `<div class="ez-bar"><button class="primary" data-act="startreview">${t('review.start')}</button><span class="n">${t('review.progress', { n: answer.decided, total: answer.total })}</span></div>
    <p class="sub">${t('review.hint')}</p>${answer.taggers.map(taggerHtml).join('')}${agreement}`;
}

const verbs = {
  async startreview(d) {
    d.keep({ order: 'review' });
    d.grid.selected.clear();
    await d.load();
    d.querySelector('.find').scrollIntoView({ behavior: 'smooth', block: 'start' });
    d.grid.box.focus({ preventScroll: true });
    d.grid.choose(0);
  },
  async suggestions(d, form) {
    const data = new FormData(form), done = await d.change('suggestions', { source: Number(data.get('source')), names: data.getAll('tag') });
    if (done) toast(t('review.moved', { n: done.moved }));
  },
};

export const review = { name: 'review', asks, html, verbs };
