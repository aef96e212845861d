// The forms below the grid of a dataset: running a tagger, moving thresholds, changing many at once, caption rules,
// export, what is worth a look. HTML out, requests in; it talks to nobody.

import { esc, lang, t } from './easel.js';

const box = (name, title, inner, open = false) => `<details class="ez-box" data-name="${name}" data-key="${name}" ${open ? 'open' : ''}><summary>${title}</summary>${inner}</details>`;
const line = (name, key, value = '', extra = '') => `<label>${t(key)}<input type="text" name="${name}" value="${esc(value)}" ${extra}></label>`;
const area = (name, key, value = '', extra = '') => `<label class="wide">${t(key)}<textarea name="${name}" rows="2" ${extra}>${esc(value)}</textarea></label>`;
const check = (name, key, on) => `<label class="check"><input type="checkbox" name="${name}" ${on ? 'checked' : ''}>${t(key)}</label>`;
const choice = (name, key, options, chosen) => `<label>${t(key)}<select name="${name}">${options.map(([value, words, off]) =>
  `<option value="${esc(value)}" ${value === chosen ? 'selected' : ''} ${off ? 'disabled' : ''}>${esc(words)}</option>`).join('')}</select></label>`;
const number = 'inputmode="decimal" autocomplete="off"';

/** What was typed and not used yet is in `draft`, by "form.field". */
export function toolsHtml({ info, taggers, presets, draft, refused }) {
  const of = (key, otherwise = '') => draft[key] ?? otherwise;
  return tagBox(info, taggers, presets, of) + info.sources.map(thresholdBox).join('') + bulkBox(of) + rulesBox(info.rules) + exportBox(of)
    + findingsBox(info.findings) + problemsBox([...refused, ...info.problems]);
}

function tagBox(info, taggers, presets, of) {
  const chosen = taggers.find((one) => one.name === of('tag.tagger')) ?? taggers[0], names = taggers.map((one) => one.name);
  const named = presets.map((p) => [p.name, names.includes(p.tagger) ? p.name : `${p.name} (${t('dataset.notinstalled', { name: p.tagger })})`, !names.includes(p.tagger)]);
  return box('tag', t('dataset.tagger'), `<form data-form="tag" class="ez-form-row">
    ${choice('preset', 'train.preset', [['', '—'], ...named], '')}
    ${choice('tagger', 'dataset.model', taggers.map((one) => [one.name, one.title]), chosen?.name)}
    ${line('general', 'dataset.general', of('tag.general'), `${number} placeholder="${chosen?.thresholds?.general ?? ''}"`)}
    ${line('character', 'dataset.character', of('tag.character'), `${number} placeholder="${chosen?.thresholds?.character ?? ''}"`)}
    ${line('trigger', 'dataset.trigger', of('tag.trigger', info.rules.trigger_word))}
    ${check('mcut', 'dataset.mcut', of('tag.mcut') === true)}${check('overwrite', 'dataset.overwrite', false)}
    <button class="primary" ${taggers.length ? '' : 'disabled'}>${t('dataset.run')}</button></form>
    ${chosen?.error ? `<p class="bad">${esc(chosen.error[lang()])}</p>` : ''}${taggers.length ? '' : `<p class="sub">${t('dataset.notaggers')}</p>`}`);
}

function thresholdBox(source) {
  const { general = '', character = '' } = source.thresholds;
  return box(`source-${source.id}`, t('dataset.thresholds', { name: esc(source.name) }), `<form data-form="thresholds" class="ez-form-row">
    <input type="hidden" name="source" value="${source.id}">
    ${line('general', 'dataset.general', general, number)}${line('character', 'dataset.character', character, number)}
    ${check('mcut', 'dataset.mcut', source.mcut.includes('general'))}${check('enabled', 'dataset.counts', source.enabled)}${check('keep', 'dataset.keep', false)}
    <button>${t('dataset.apply')}</button></form><p class="sub">${t('dataset.thresholdhint')}</p>`);
}

function bulkBox(of) {
  const kinds = ['add', 'remove', 'replace', 'regex', 'find in captions', 'regex in captions'];
  return box('bulk', t('dataset.bulk'), `<form data-form="bulk" class="ez-form-row">
    ${choice('action', 'dataset.what', kinds.map((kind) => [kind, t(`dataset.bulk.${kind.replaceAll(' ', '_')}`)]), of('bulk.action', 'add'))}
    ${line('find', 'dataset.find', of('bulk.find'), 'required')}${line('replace', 'dataset.replace', of('bulk.replace'))}
    <button value="preview">${t('dataset.preview')}</button></form><div class="preview"></div>`);
}

/** The changes of a bulk edit as a table, and the button that makes them. */
export function changesHtml({ total, changes }) {
  const words = (c) => (c.after != null ? `<del>${esc(c.before)}</del> → <ins>${esc(c.after)}</ins>`
    : `${c.removed.map((tag) => `<del>− ${esc(tag)}</del>`).join(' ')} ${c.added.map((tag) => `<ins>+ ${esc(tag)}</ins>`).join(' ')}`);
  return `<p>${t('dataset.willchange', { n: total })}</p>${total ? `<div class="ez-scroll"><table class="ez-table">${changes.map((c) =>
    `<tr><td>${esc(c.name)}</td><td>${words(c)}</td></tr>`).join('')}</table></div><div class="ez-bar"><button class="primary" data-act="apply">${t('dataset.apply')}</button></div>` : ''}`;
}

function rulesBox(rules) {
  const options = (name, values) => values.map((value) => [value, t(`rules.${name}.${value.replaceAll(', ', '_').replaceAll(' ', '_')}`)]);
  return box('rules', t('rules.title'), `<form data-form="rules" class="ez-form-row">
    ${line('trigger_word', 'dataset.trigger', rules.trigger_word)}${line('always_first', 'rules.always_first', rules.always_first.join(', '))}
    ${choice('parts', 'rules.parts', options('parts', ['tags', 'caption', 'tags, caption', 'caption, tags']), rules.parts)}
    ${choice('order', 'rules.order', options('order', ['score', 'alphabet', 'as read']), rules.order)}
    ${choice('underscores', 'rules.underscores', options('underscores', ['space', 'keep']), rules.underscores)}
    ${line('max_tags', 'rules.max_tags', rules.max_tags || '', 'inputmode="numeric" placeholder="∞"')}
    ${area('blacklist', 'rules.blacklist', rules.blacklist.join(', '))}
    ${area('replacements', 'rules.replacements', Object.entries(rules.replacements).map(([a, b]) => `${a} = ${b}`).join('\n'), `placeholder="${t('rules.replacements_hint')}"`)}
    <button class="primary">${t('rules.save')}</button></form><p class="sub">${t('rules.hint')}</p>`);
}

/** The caption rules as the form has them, over those that it does not show. */
export function rulesOf(data, before) {
  const list = (name) => data.get(name).split(/[,，\n]/).map((word) => word.trim()).filter(Boolean);
  const pairs = data.get('replacements').split('\n').filter((row) => row.includes('=')).map((row) => { const at = row.indexOf('='); return [row.slice(0, at).trim(), row.slice(at + 1).trim()]; });
  const plain = Object.fromEntries(['parts', 'order', 'underscores'].map((name) => [name, data.get(name)]));
  return { ...before, ...plain, trigger_word: data.get('trigger_word').trim(), always_first: list('always_first'), blacklist: list('blacklist'),
    replacements: Object.fromEntries(pairs), max_tags: data.get('max_tags').trim() || 0 };
}

function exportBox(of) {
  return box('export', t('dataset.export'), `<form data-form="export" class="ez-form-row">
    ${choice('suffix', 'dataset.suffix', [['.txt', '.txt'], ['.caption', '.caption']], of('export.suffix', '.txt'))}${check('overwrite', 'dataset.overwritefiles', false)}
    <button class="primary">${t('dataset.write')}</button><button type="button" data-act="zip">${t('dataset.zip')}</button></form><p class="sub">${t('dataset.exporthint')}</p>`);
}

function findingsBox(findings) {
  const row = (f) => `<li>${esc(f[lang()])} ${f.filter ? `<a href="#" role="button" data-filter="${esc(f.filter)}">${t('dataset.showthem')}</a>` : ''}</li>`;
  return findings.length ? box('findings', `${t('dataset.findings')} (${findings.length})`, `<ul class="ez-list">${findings.map(row).join('')}</ul>`) : '';
}

function problemsBox(problems) {
  const row = (p) => `<li><b>${esc(p.path)}</b> ${esc(p[lang()] ?? p.en)}</li>`;
  return problems.length ? box('problems', `${t('dataset.problems')} (${problems.length})`, `<ul class="ez-list">${problems.map(row).join('')}</ul>`, true) : '';
}
