// The form of a workflow as HTML: one field for each chosen input, and the list in which they are chosen.

import { esc, lang, named, t } from './easel.js';
import { viewUrl } from './job.js';

const titled = (row) => (lang() === 'zh' ? row.title_zh : row.title);

/** The value that a changed widget holds. */
export const valueOf = (input) => (input.type === 'checkbox' ? input.checked : input.value);

/** Fields of one name are told apart by their node; a text is called like its node. */
export function fieldsHtml(fields) {
  const twice = new Set(fields.map((f) => f.name).filter((name, i, all) => all.indexOf(name) !== i));
  return fields.map((field) => {
    const name = named('input', field.name), text = field.kind === 'string' && field.name === 'text';
    const label = text ? titled(field) : twice.has(field.name) ? `${name} · ${titled(field)}` : name;
    const wide = field.multiline || field.kind === 'picture' || (field.kind === 'combo' && String(field.value).length > 16);
    const hint = field.tooltip ? ` title="${esc(field.tooltip)}"` : '';
    return `<div data-field="${esc(field.key)}" data-key="f${esc(field.key)}" class="${wide ? 'wide' : ''}">${widget(field, esc(label), hint)}</div>`;
  }).join('');
}

function widget(field, label, hint) {
  const { kind, value, choices } = field;
  if (kind === 'boolean') return `<label class="check"${hint}><input type="checkbox" ${value ? 'checked' : ''}>${label}</label>`;
  if (kind === 'picture') return pictureHtml(field, label);
  if (kind === 'combo') {
    const missing = choices.some((one) => String(one) === String(value)) ? '' : `<option value="${esc(value)}" selected>${esc(value)} (${t('workflow.gone')})</option>`;
    return `<label${hint}>${label}<select>${missing}${choices.map((one) => `<option value="${esc(one)}" ${String(one) === String(value) ? 'selected' : ''}>${esc(one)}</option>`).join('')}</select></label>`;
  }
  if (field.multiline) return `<label${hint}>${label}<textarea rows="3">${esc(value)}</textarea></label>`;
  const number = kind === 'int' || kind === 'float' ? ' inputmode="decimal" autocomplete="off"' : '';
  return `<label${hint}>${label}<input type="text" value="${esc(value)}"${number}></label>`;
}

function pictureHtml({ value, choices }, label) {
  const [, subfolder = '', filename] = String(value).match(/^(?:(.*)\/)?([^/]*)$/) ?? [], there = choices.includes(value);
  const shown = there ? `<img alt="${esc(value)}" src="${viewUrl({ filename, subfolder, type: 'input' })}">` : '';
  const options = [...(there ? [] : [value]), ...choices].map((one) => `<option ${one === value ? 'selected' : ''}>${esc(one)}</option>`).join('');
  return `<div class="ez-start">${shown}<div><label>${label}<select>${options}</select></label>
    <label class="ez-file drop">${t('generate.start_choose')}<input type="file" accept="image/*"></label></div></div>`;
}

/** Every input of every node with a box that puts it into the form. */
export function chooserHtml({ nodes, fields }) {
  const on = new Set(fields.map((field) => field.key));
  const row = (node) => `<fieldset><legend>${esc(titled(node))} <small>#${esc(node.id)}</small></legend>${node.inputs.map(([name]) => {
    const key = `${node.id}.${name}`;
    return `<label class="check"><input type="checkbox" data-choose="${esc(key)}" ${on.has(key) ? 'checked' : ''}>${esc(named('input', name))}</label>`;
  }).join('')}</fieldset>`;
  const some = nodes.filter((node) => node.inputs.length);
  return some.length ? `<details class="ez-box" data-key="pick"><summary>${t('workflow.choose')}</summary>${some.map(row).join('')}</details>` : '';
}
