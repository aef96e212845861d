// Running a tagger or captioner. The settings of a tool that describes them are drawn from that description.

import { attempt, call, esc, lang, t } from '../easel.js';
import { formHtml, formValues } from '../form.js';
import { check, choice, line } from './fields.js';

const NUMBER = 'inputmode="decimal" autocomplete="off"';

function chosenOf(d) { return d.taggers.find((one) => one.name === d.draft['tag.tagger']) ?? d.taggers[0]; }

function html(d) {
  const { taggers, presets, draft, info } = d, of = (key, otherwise = '') => draft[`tag.${key}`] ?? otherwise;
  const chosen = chosenOf(d), names = taggers.map((one) => one.name);
  const named = presets.map((p) => [p.name, names.includes(p.tagger) ? p.name : `${p.name} (${t('dataset.notinstalled', { name: p.tagger })})`, !names.includes(p.tagger)]);
  const limits = Object.entries(chosen?.thresholds ?? {}).filter(([category]) => category !== 'rating').map(([category, value]) =>
    line(`threshold.${category}`, t('merge.threshold', { category: t(`category.${category}`) }), of(`threshold.${category}`), `${NUMBER} placeholder="${value}"`));
  const rare = limits.slice(2).join(''), more = rare && `<details class="ez-more" data-key="more"><summary>${t('form.more', { n: limits.length - 2 })}</summary><div class="ez-form-row">${rare}</div></details>`;
  const own = chosen?.fields ? formHtml(chosen.fields, {}, { draft: (name) => draft[`tag.${name}`] })
      + `<button type="button" data-act="showprompt">${t('dataset.showprompt')}</button>`
    : `${limits.slice(0, 2).join('')}${check('mcut', t('dataset.mcut'), of('mcut') === true)}`;
  return `<form data-act="runtagger" data-keep="tag" class="ez-form-row">
    ${choice('preset', t('train.preset'), [['', '—'], ...named], '', 'data-change="preset"')}
    ${choice('tagger', t('dataset.model'), taggers.map((one) => [one.name, one.title]), chosen?.name, 'data-change="redraw"')}${own}
    ${line('trigger', t('dataset.trigger'), of('trigger', info.rules.trigger_word))}
    ${check('chosen', t('dataset.onlychosen', { n: d.ids.length }), false, d.ids.length ? '' : 'disabled')}${check('overwrite', t('dataset.overwrite'), false)}
    <button class="primary" ${taggers.length ? '' : 'disabled'}>${t('dataset.run')}</button>${chosen?.fields ? '' : more}</form>
    ${chosen?.note?.[lang()] ? `<p class="sub">${esc(chosen.note[lang()])}</p>` : ''}
    ${chosen?.error ? `<p class="bad">${esc(chosen.error[lang()])}</p>` : ''}${taggers.length ? '' : `<p class="sub">${t('dataset.notaggers')}</p>`}`;
}

const verbs = {
  redraw: (d) => d.drawTool(),
  preset(d, select) {
    const preset = d.presets.find((one) => one.name === select.value), { draft } = d;
    if (!preset) return;
    const values = { tagger: preset.tagger, trigger: draft['tag.trigger'] || preset.captions?.trigger_word || '', mcut: preset.mcut?.includes('general') ?? false };
    for (const [category, value] of Object.entries(preset.thresholds ?? {})) values[`threshold.${category}`] = String(value);
    d.keep(Object.fromEntries(Object.entries(values).map(([name, value]) => [`tag.${name}`, value])));
    for (const [name, value] of Object.entries(values)) {
      const input = select.form.elements[name];
      if (input) { if (input.type === 'checkbox') input.checked = value; else input.value = value; }
    }
    d.drawTool();
  },
  /** The prompt that the choices make goes into its field, to be read and changed. */
  async showprompt(d, button) {
    const { form } = button, chosen = chosenOf(d), { prompt: _, ...values } = formValues(form, chosen.fields);
    const answer = await attempt(call('tools/prompt', { ...chosen.tool, ...values }));
    if (!answer) return;
    form.elements.prompt.value = answer.prompt;
    form.elements.prompt.dispatchEvent(new Event('input', { bubbles: true }));
  },
  async runtagger(d, form) {
    const data = new FormData(form), trigger = data.get('trigger').trim(), chosen = chosenOf(d);
    if (trigger !== d.info.rules.trigger_word && !(await d.change('rules', { ...d.info.rules, trigger_word: trigger }))) return;
    const settings = { dataset: d.name, overwrite: data.get('overwrite') === 'on' };
    if (data.get('chosen') === 'on') settings.pictures = d.ids;
    if (chosen?.fields) settings.tools = [{ ...chosen.tool, ...formValues(form, chosen.fields) }];
    else {
      settings.tagger = data.get('tagger');
      settings.mcut = data.get('mcut') === 'on' ? ['general'] : [];
      settings.thresholds = {};
      for (const [name, value] of data) {
        const found = name.startsWith('threshold.') && value.trim().replace(',', '.');
        if (found) settings.thresholds[name.slice(10)] = found;
      }
    }
    await attempt(call('jobs', { kind: 'tag', title: d.name, settings }));
  },
};

export const tagging = { name: 'tag', html, verbs, follows: true };
