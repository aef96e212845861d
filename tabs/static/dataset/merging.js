// Where the scores of taggers begin to count, and how several taggers become one list. Nothing is read again.

import { esc, t, toast } from '../easel.js';
import { area, check, choice, line } from './fields.js';

const NUMBER = 'inputmode="decimal" autocomplete="off"';

function sourceHtml(source) {
  const limits = Object.entries(source.thresholds).filter(([category]) => category !== 'rating').map(([category, value]) =>
    line(`threshold.${category}`, t('merge.threshold', { category: t(`category.${category}`) }), value, NUMBER)).join('');
  const each = Object.entries(source.per_tag).map(([tag, value]) => `${tag} = ${value}`).join('\n');
  return `<section class="ez-card" data-key="source-${source.id}"><h4>${esc(source.name)}</h4><form data-act="thresholds" class="ez-form-row">
    <input type="hidden" name="source" value="${source.id}">${limits}${area('per_tag', t('merge.per_tag'), each, `placeholder="${t('merge.per_tag_hint')}"`)}
    ${check('mcut', t('dataset.mcut'), source.mcut.includes('general'))}${check('enabled', t('dataset.counts'), source.enabled)}${check('keep', t('dataset.keep'), false)}
    <button>${t('dataset.apply')}</button></form></section>`;
}

function mergeHtml({ sources, merge }) {
  if (sources.length < 2) return '';
  const part = (s) => `<tr data-key="${s.id}" data-source="${s.id}"><td>${esc(s.name)}</td><td><input type="text" name="weight" aria-label="${t('merge.weight')}" value="${s.weight}" ${NUMBER}></td>
    <td><label class="check"><input type="checkbox" name="subtracts" ${s.subtracts ? 'checked' : ''}>${t('merge.subtracts')}</label></td></tr>`;
  return `<section class="ez-card" data-key="merge"><h4>${t('merge.title')}</h4><form data-act="merge" class="ez-form-row">
    ${choice('how', t('merge.how'), ['union', 'intersection', 'vote'].map((how) => [how, t(`merge.${how}`)]), merge.how)}
    ${line('share', t('merge.share'), merge.share ?? 0.5, NUMBER)}
    <table class="ez-table parts"><thead><tr><th>${t('dataset.model')}</th><th>${t('merge.weight')}</th><th></th></tr></thead><tbody>${sources.map(part).join('')}</tbody></table>
    <button class="primary">${t('dataset.apply')}</button></form></section>`;
}

const html = ({ info }) => (info.sources.length
  ? `<p class="sub">${t('dataset.thresholdhint')}</p>${mergeHtml(info)}${info.sources.map(sourceHtml).join('')}`
  : `<p class="empty">${t('merge.none')}</p>`);

const verbs = {
  async thresholds(d, form) {
    const data = new FormData(form), thresholds = {};
    for (const [name, value] of data) if (name.startsWith('threshold.')) thresholds[name.slice(10)] = value;
    const rows = data.get('per_tag').split('\n').filter((row) => row.includes('=')).map((row) => { const at = row.lastIndexOf('='); return [row.slice(0, at).trim(), row.slice(at + 1).trim()]; });
    const body = { source: Number(data.get('source')), thresholds, per_tag: Object.fromEntries(rows), mcut: data.get('mcut') ? ['general'] : [], enabled: data.get('enabled') === 'on', keep: data.get('keep') === 'on' };
    if (await d.change('thresholds', body)) toast(t('dataset.applied'));
  },
  async merge(d, form) {
    const sources = Object.fromEntries([...form.querySelectorAll('tr[data-source]')].map((row) => [row.dataset.source,
      { weight: row.querySelector('[name=weight]').value, subtracts: row.querySelector('[name=subtracts]').checked }]));
    if (await d.change('merge', { how: form.how.value, share: form.share.value, sources })) toast(t('dataset.applied'));
  },
};

export const merging = { name: 'merge', html, verbs };
