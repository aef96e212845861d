// Running taggers and captioners: one, or several in one pass. A tagger has thresholds; the settings of a captioner are
// drawn from its own description, with the prompt that they make.

import { call, esc, lang, t, toast } from '../easel.js';
import { formHtml, formValues } from '../form.js';
import { check, choice, line } from './fields.js';
import { draw } from './painter.js';

const NUMBER = 'inputmode="decimal" autocomplete="off"';

const chosenOf = (d) => d.taggers.find((one) => one.name === d.draft['tag.tagger']) ?? d.taggers[0];
const isCaptioner = (row) => row?.fields !== undefined;
/** Whether the chosen task is about a region, that somebody has to draw. */
const wantsRegion = (d) => { const row = chosenOf(d); return row?.region_tasks?.includes(d.draft[`tool.${row.name}.task`]) ?? false; };
const stepsOf = (d) => d.draft['tag.steps'] ?? [];

function html(d) {
  const { taggers, presets, draft, info } = d, chosen = chosenOf(d), names = taggers.map((one) => one.name), steps = stepsOf(d);
  const of = (key, otherwise = '') => draft[`tool.${chosen?.name}.${key}`] ?? otherwise;
  const named = presets.map((p) => [p.name, names.includes(p.tagger) ? p.name : `${p.name} (${t('dataset.notinstalled', { name: p.tagger })})`, !names.includes(p.tagger)]);
  const own = isCaptioner(chosen) ? formHtml(chosen.fields, {}, { draft: (name) => draft[`tool.${chosen.name}.${name}`] }) : limitsHtml(chosen, of);
  const merge = steps.length ? choice('how', t('merge.how'), [['', t('tag.mergekeep')], ...['union', 'intersection', 'vote'].map((how) => [how, t(`merge.${how}`)])], '') : '';
  return `${stepsHtml(steps)}<form data-act="runtagger" data-keep="tool.${esc(chosen?.name ?? '')}" class="ez-form-row">
    ${choice('preset', t('train.preset'), [['', '—'], ...named], '', 'data-change="preset"')}
    ${choice('tagger', t('dataset.model'), taggers.map((one) => [one.name, one.title]), chosen?.name, 'data-change="choosetool"')}${own}
    ${line('trigger', t('dataset.trigger'), info.rules.trigger_word)}
    ${check('chosen', t('dataset.onlychosen', { n: d.ids.length }), false, d.ids.length ? '' : 'disabled')}${check('overwrite', t('dataset.overwrite'), false)}${merge}
    ${wantsRegion(d) ? `<button type="button" class="primary" data-act="drawregion">${t('draw.region')}</button>`
      : `<button class="primary" ${taggers.length ? '' : 'disabled'}>${t('dataset.run')}</button><button type="button" data-act="addstep" title="${t('tag.addhint')}">${t('tag.add')}</button>`}</form>
    ${isCaptioner(chosen) && !wantsRegion(d) ? `<p class="ez-prompt" data-key="prompt"><span class="sub">${t('tag.prompt')}</span> <span class="words">${esc(d.prompt ?? '')}</span> <button data-act="showprompt">${t('dataset.showprompt')}</button></p>` : ''}
    ${chosen?.note?.[lang()] ? `<p class="sub">${esc(chosen.note[lang()])}</p>` : ''}
    ${chosen?.error ? `<p class="bad">${esc(chosen.error[lang()])}</p>` : ''}${taggers.length ? '' : `<p class="sub">${t('dataset.notaggers')}</p>`}`;
}

function limitsHtml(chosen, of) {
  const limits = Object.entries(chosen?.thresholds ?? {}).filter(([category]) => category !== 'rating').map(([category, value]) =>
    line(`threshold.${category}`, t('merge.threshold', { category: t(`category.${category}`) }), of(`threshold.${category}`), `${NUMBER} placeholder="${value}"`));
  const rare = limits.slice(2).join('');
  return `${limits.slice(0, 2).join('')}${check('mcut', t('dataset.mcut'), of('mcut') === true)}${rare
    ? `<details class="ez-more" data-key="more"><summary>${t('form.more', { n: limits.length - 2 })}</summary><div class="ez-form-row">${rare}</div></details>` : ''}`;
}

const stepsHtml = (steps) => (steps.length ? `<div class="ez-bar steps" data-key="steps"><span class="n">${t('tag.steps')}</span>${steps.map((step, i) =>
  `<button data-act="dropstep" data-i="${i}" title="${t('tag.drop')}">${i + 1}. ${esc(step.title)} ✕</button>`).join('')}</div>` : '');

/** What the form says, as a tool of a tag job. */
function toolOf(d, form) {
  const chosen = chosenOf(d);
  if (isCaptioner(chosen)) return { ...chosen.tool, ...formValues(form, chosen.fields) };
  const data = new FormData(form), tool = { kind: 'onnx', tagger: chosen.name, mcut: data.get('mcut') === 'on' ? ['general'] : [], thresholds: {} };
  for (const [name, value] of data) {
    const found = name.startsWith('threshold.') && value.trim().replace(',', '.');
    if (found) tool.thresholds[name.slice(10)] = found;
  }
  return tool;
}

/** The prompt that the choices make, as the server words it. */
async function showPrompt(d, panel) {
  const form = panel.querySelector('form'), words = panel.querySelector('.ez-prompt .words');
  if (!words) return;
  const answer = await call('tools/prompt', toolOf(d, form)).catch((error) => ({ prompt: error.message }));
  d.prompt = answer.prompt;
  if (words.isConnected) words.textContent = answer.prompt;
}

const verbs = {
  choosetool(d, select) { d.keep({ 'tag.tagger': select.value }); d.prompt = ''; d.drawTool(); },
  preset(d, select) {
    const preset = d.presets.find((one) => one.name === select.value), trigger = select.form.trigger;
    if (!preset) return;
    const values = { mcut: preset.mcut?.includes('general') ?? false };
    for (const [category, value] of Object.entries(preset.thresholds ?? {})) values[`threshold.${category}`] = String(value);
    d.keep({ 'tag.tagger': preset.tagger, ...Object.fromEntries(Object.entries(values).map(([name, value]) => [`tool.${preset.tagger}.${name}`, value])) });
    d.drawTool();
    for (const [name, value] of Object.entries(values)) {
      const input = select.form.elements[name];
      if (input) { if (input.type === 'checkbox') input.checked = value; else input.value = value; }
    }
    trigger.value = trigger.value || preset.captions?.trigger_word || '';
  },
  /** The prompt that the choices make goes into its field, to be changed. */
  showprompt(d) {
    const { prompt } = d.querySelector('.tool form').elements;
    prompt.value = d.prompt;
    prompt.dispatchEvent(new Event('input', { bubbles: true }));
  },
  addstep(d, button) {
    d.keep({ 'tag.steps': [...stepsOf(d), { title: chosenOf(d).name, tool: toolOf(d, button.form) }] });
    d.drawTool();
  },
  dropstep(d, button) { d.keep({ 'tag.steps': stepsOf(d).filter((_, i) => i !== Number(button.dataset.i)) }); d.drawTool(); },
  /** The answer becomes the region's label; the caption stays as it is. */
  drawregion(d, button) {
    if (!d.picture) { toast(t('draw.choose'), true); return undefined; }
    const tool = toolOf(d, button.form), pictures = [d.picture.id];
    return draw(d, 'region', ({ region }) => call('jobs', { kind: 'tag', title: d.name, settings: { dataset: d.name, pictures, tools: [{ ...tool, region }] } }));
  },
  async runtagger(d, form) {
    const data = new FormData(form), trigger = data.get('trigger').trim();
    if (trigger !== d.info.rules.trigger_word && !(await d.change('rules', { ...d.info.rules, trigger_word: trigger }))) return;
    const settings = { dataset: d.name, overwrite: data.get('overwrite') === 'on', tools: [...stepsOf(d).map((step) => step.tool), toolOf(d, form)] };
    if (data.get('chosen') === 'on') settings.pictures = d.ids;
    if (data.get('how')) settings.merge = { how: data.get('how') };
    await call('jobs', { kind: 'tag', title: d.name, settings });
    d.keep({ 'tag.steps': [] });
    d.drawTool();
  },
};

export const tagging = {
  name: 'tag', html, verbs, follows: true, drawn: showPrompt,
  typed(d, panel) {
    if (wantsRegion(d) !== Boolean(panel.querySelector('[data-act=drawregion]'))) d.drawTool();
    clearTimeout(d.asking); d.asking = setTimeout(() => showPrompt(d, panel), 300);
  },
};
