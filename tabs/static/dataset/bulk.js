// Changing many pictures at once: every change is shown first, and made exactly as it was shown or not at all.

import { call, esc, t, toast } from '../easel.js';
import { check, choice, line } from './fields.js';

const ACTIONS = ['add', 'remove', 'replace', 'regex', 'find in captions', 'regex in captions'];

function html(d) {
  const of = (name, otherwise = '') => d.draft[`bulk.${name}`] ?? otherwise, how = of('action', 'add');
  const completes = how.endsWith('captions') || how === 'regex' ? '' : 'data-complete="tags"';
  const scope = d.ids.length > 1 ? t('bulk.chosen', { n: d.ids.length }) : t('bulk.filtered', { n: d.info.ids.length });
  return `<form data-act="bulkpreview" data-keep="bulk" class="ez-form-row">
    ${choice('action', t('dataset.what'), ACTIONS.map((a) => [a, t(`dataset.bulk.${a.replaceAll(' ', '_')}`)]), how, 'data-change="bulkaction"')}
    ${line('find', t(how.endsWith('captions') ? 'bulk.words' : 'bulk.tags'), of('find'), `autocomplete="off" ${completes}`)}
    ${['add', 'remove'].includes(how) ? '' : line('replace', t('dataset.replace'), of('replace'), `autocomplete="off" ${completes}`)}
    ${how === 'regex' || how.endsWith('captions') ? check('ignore_case', t('bulk.ignorecase'), of('ignore_case') === true) : ''}
    <button value="preview">${t('dataset.preview')}</button></form><p class="sub">${scope}</p>${d.plan ? planHtml(d.plan) : ''}`;
}

/** The changes of a bulk edit as a table, and the button that makes them. */
function planHtml({ total, changes }) {
  const words = (c) => (c.after != null ? `<del>${esc(c.before)}</del> → <ins>${esc(c.after)}</ins>`
    : `${c.removed.map((tag) => `<del>− ${esc(tag)}</del>`).join(' ')} ${c.added.map((tag) => `<ins>+ ${esc(tag)}</ins>`).join(' ')}`);
  const rows = changes.map((c, i) => `<tr data-key="${i}"><td>${esc(c.name)}</td><td>${words(c)}</td></tr>`).join('');
  const more = total > changes.length ? `<button data-act="bulkmore">${t('bulk.more', { n: total - changes.length })}</button>` : '';
  return `<div data-key="plan"><p><b>${t('dataset.willchange', { n: total })}</b></p>${total
    ? `<div class="ez-scroll"><table class="ez-table changes">${rows}</table></div><div class="ez-bar"><button class="primary" data-act="bulkapply">${t('dataset.apply')}</button>${more}</div>` : ''}</div>`;
}

const verbs = {
  bulkaction(d) { d.plan = undefined; d.drawTool(); },
  async bulkpreview(d, form) {
    const data = new FormData(form);
    d.edit = { action: data.get('action'), find: data.get('find'), replace: data.get('replace') ?? '', ignore_case: data.get('ignore_case') === 'on', filter: d.search.value, pictures: d.ids.length > 1 ? d.ids : [] };
    d.plan = await call(`${d.path}/bulk`, d.edit);
    d.drawTool();
  },
  async bulkmore(d) {
    const more = await call(`${d.path}/bulk`, { ...d.edit, from: d.plan.changes.length });
    if (more.digest !== d.plan.digest) d.plan = more;
    else d.plan = { ...d.plan, changes: [...d.plan.changes, ...more.changes] };
    d.drawTool();
  },
  async bulkapply(d) {
    if (!(await d.change('bulk', { ...d.edit, expected: d.plan.digest, apply: true }))) return;
    d.plan = undefined;
    d.drawTool();
    toast(t('dataset.applied'));
  },
};

export const bulk = { name: 'bulk', html, verbs, follows: true };
