// Forms from a description of fields (studio/live/forms.py): HTML out, values in. What differs from the defaults is sent.
// It knows no particular form.

import { esc, lang, t } from './easel.js';

const shown = {
  pairs: (value) => Object.entries(value).map(([a, b]) => `${a} = ${b}`).join('\n'),
  lists: (value) => Object.entries(value).map(([a, b]) => `${a} = ${b.join(', ')}`).join('\n'),
  numbers: (value) => Object.entries(value).map(([a, b]) => `${a} = ${b}`).join('\n'),
  lines: (value) => value.join(', '),
};

/** The fields with these values; those that are not basic fold away. `draft(name)` gives what was typed and not sent. */
export function formHtml(fields, values = {}, { draft = () => undefined, hints = {} } = {}) {
  const html = (field) => fieldHtml(field, draft(field.name) ?? values[field.name] ?? field.default, hints[field.name]);
  const more = fields.filter((field) => !field.basic);
  return fields.filter((field) => field.basic).map(html).join('') + (more.length
    ? `<details class="ez-more" data-key="more"><summary>${t('form.more', { n: more.length })}</summary><div class="ez-form-row">${more.map(html).join('')}</div></details>` : '');
}

/** A field that takes some of a few without naming them takes words. */
const kindOf = (field) => (field.kind === 'choices' && !field.options ? 'lines' : field.kind);

function fieldHtml(field, value, hint) {
  const { name } = field, kind = kindOf(field), title = esc(field.title[lang()]), help = esc(field.help[lang()]);
  const under = help ? `<small>${help}</small>` : '', key = `data-key="f-${esc(name)}"`, at = `name="${esc(name)}" data-kind="${kind}"`;
  const text = typeof value === 'string' ? value : value == null ? '' : (shown[kind] ?? String)(value);
  const note = hint === undefined ? '' : ` placeholder="${esc(hint)}"`;
  if (kind === 'switch') return `<label class="check" ${key} title="${help}"><input type="checkbox" ${at} ${value === true ? 'checked' : ''}>${title}</label>`;
  if (kind === 'choice') {
    const none = field.optional ? `<option value="">—</option>` : '';
    return `<label ${key}>${title}<select ${at}>${none}${field.options.map((o) => `<option value="${esc(o.value)}" ${o.value === value ? 'selected' : ''}>${esc(o[lang()])}</option>`).join('')}</select>${under}</label>`;
  }
  if (kind === 'choices') {
    const on = new Set(value ?? []);
    return `<fieldset class="wide" ${key}><legend>${title}</legend><div class="ez-checks">${field.options.map((o) =>
      `<label class="check"><input type="checkbox" ${at} value="${esc(o.value)}" ${on.has(o.value) ? 'checked' : ''}>${esc(o[lang()])}</label>`).join('')}</div>${under}</fieldset>`;
  }
  if (['area', 'lines', 'pairs', 'lists', 'numbers'].includes(kind)) {
    const rows = kind === 'area' ? 3 : 2;
    return `<label class="wide" ${key}>${title}<textarea ${at} rows="${rows}" autocomplete="off" ${note}>${esc(text)}</textarea>${under}</label>`;
  }
  const number = kind === 'integer' || kind === 'number';
  const range = number && field.min !== undefined && field.max !== undefined ? ` title="${field.min} – ${field.max}"` : '';
  return `<label ${key}>${title}<input type="text" ${at} value="${esc(text)}" autocomplete="off" ${number ? `inputmode="decimal"${range}` : ''} ${note}>${under}</label>`;
}

const words = (text) => text.split(/[,，\n]/).map((word) => word.trim()).filter(Boolean);
const rows = (text) => text.split('\n').filter((row) => row.includes('=')).map((row) => { const at = row.indexOf('='); return [row.slice(0, at).trim(), row.slice(at + 1)]; });
// What is no number goes to the server as it is, which says in the reader's language what is wrong with it.
const number = (text) => { const n = Number(text.trim().replace(',', '.')); return text.trim() && Number.isFinite(n) ? n : text.trim(); };

const taken = {
  switch: (input) => input.checked,
  integer: (input) => number(input.value), number: (input) => number(input.value),
  lines: (input) => words(input.value),
  pairs: (input) => Object.fromEntries(rows(input.value).map(([a, b]) => [a, b.replace(/^ /, '')])),
  lists: (input) => Object.fromEntries(rows(input.value).map(([a, b]) => [a, words(b)])),
  numbers: (input) => Object.fromEntries(rows(input.value).map(([a, b]) => [a, number(b)])),
};

/** What a form says, by field, without what is as the default. An empty number of a field without default is left out. */
export function formValues(form, fields) {
  const found = {};
  for (const field of fields) {
    const inputs = [...form.querySelectorAll(`[name="${CSS.escape(field.name)}"]`)];
    if (!inputs.length) continue;
    const kind = kindOf(field), value = kind === 'choices' ? inputs.filter((input) => input.checked).map((input) => input.value) : (taken[kind] ?? ((input) => input.value))(inputs[0]);
    const empty = value === '' && (field.optional || typeof field.default === 'number');
    if (!empty && JSON.stringify(value) !== JSON.stringify(field.default)) found[field.name] = value;
  }
  return found;
}

/** What one input holds, as a draft keeps it. */
export const inputValue = (input) => (input.dataset.kind === 'choices'
  ? [...input.form.querySelectorAll(`[name="${CSS.escape(input.name)}"]`)].filter((one) => one.checked).map((one) => one.value)
  : input.type === 'checkbox' ? input.checked : input.value);
