// Single fields of the tools' forms, as HTML. Forms that a settings model describes are in form.js.

import { esc } from '../easel.js';

export const line = (name, title, value = '', extra = '') => `<label data-key="f-${esc(name)}">${esc(title)}<input type="text" name="${esc(name)}" value="${esc(value)}" ${extra}></label>`;
export const area = (name, title, value = '', extra = '') => `<label class="wide" data-key="f-${esc(name)}">${esc(title)}<textarea name="${esc(name)}" rows="2" ${extra}>${esc(value)}</textarea></label>`;
export const check = (name, title, on, extra = '') => `<label class="check" data-key="f-${esc(name)}"><input type="checkbox" name="${esc(name)}" ${on ? 'checked' : ''} ${extra}>${esc(title)}</label>`;
export const choice = (name, title, options, chosen, extra = '') => `<label data-key="f-${esc(name)}">${esc(title)}<select name="${esc(name)}" ${extra}>${options.map(([value, words, off]) =>
  `<option value="${esc(value)}" ${String(value) === String(chosen) ? 'selected' : ''} ${off ? 'disabled' : ''}>${esc(words)}</option>`).join('')}</select></label>`;

/** A table with a head, in a box that scrolls by itself. */
export const table = (head, rows, more = '') => `<div class="ez-scroll"><table class="ez-table"><thead><tr>${head.map((words) => `<th>${words}</th>`).join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>${more}`;
