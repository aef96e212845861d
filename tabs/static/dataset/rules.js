// Caption rules: how tags and text become the line that a trainer reads. The form is drawn from the rules' own model.

import { t, toast } from '../easel.js';
import { formHtml, formValues } from '../form.js';

const asks = (d) => d.ask('rules');

const html = (d, answer) => (answer
  ? `<form data-act="rules" class="ez-form-row">${formHtml(answer.fields, d.info.rules)}<button class="primary">${t('rules.save')}</button></form><p class="sub">${t('rules.hint')}</p>`
  : '');

const verbs = {
  async rules(d, form) { if (await d.change('rules', formValues(form, d.answers.rules.fields))) toast(t('rules.saved')); },
};

export const rules = { name: 'rules', asks, html, verbs };
