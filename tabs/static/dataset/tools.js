// The tools below the grid of a dataset, one open at a time. A tool is { name, html(d, answer), verbs } with, where needed,
// asks(d) for what it has to ask the server, drawn(d, panel) after it was drawn, typed(d, panel) while its form is filled in,
// follows (draw again when another picture is chosen) and watches (when a job goes on). Adding one is a file and its place in
// this list.

import { t } from '../easel.js';
import { bulk } from './bulk.js';
import { check } from './check.js';
import { compare } from './compare.js';
import { exchange } from './exchange.js';
import { history } from './history.js';
import { look } from './look.js';
import { merging } from './merging.js';
import { verbs as pictureVerbs } from './picture.js';
import { review } from './review.js';
import { rules } from './rules.js';
import { tagging } from './tagging.js';
import { verbs as topVerbs } from './top.js';

export const TOOLS = [tagging, merging, review, bulk, rules, compare, check, look, exchange, history];

export const VERBS = {
  ...topVerbs,
  ...pictureVerbs,
  ...Object.assign({}, ...TOOLS.map((tool) => tool.verbs)),
  tool: (d, button) => { d.keep({ tool: button.dataset.tool }); d.drawTool(); return d.inquire(); },
};

export const stripHtml = (open) => TOOLS.map(({ name }) =>
  `<button role="tab" data-key="${name}" data-act="tool" data-tool="${name}" aria-selected="${name === open.name}">${t(`tool.${name}`)}</button>`).join('');
