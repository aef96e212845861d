// Lets the page around the editor load and read its graph, by messages of the same origin. It uses what the editor
// offers to extensions (app.registerExtension, loadGraphData, loadApiJson, graphToPrompt, queuePrompt) and nothing else.
//
// {easel: "ask", id, what, ...} comes in; {easel: "answer", id, ...} or {easel: "told", what, ...} goes out.

import { app } from '../../scripts/app.js';
import { api } from '../../scripts/api.js';
import { defaultGraph } from '../../scripts/defaultGraph.js';

const say = (message) => { if (parent !== window) parent.postMessage(message, location.origin); };
const current = () => app.extensionManager?.workflow?.activeWorkflow;

// A new editor starts with a graph for the model that comes along, not with one whose models nobody has here.
const first = await fetch(api.fileURL('/templates/demo_text_to_image.json')).then((answer) => (answer.ok ? answer.json() : undefined)).catch(() => undefined);
if (first) {
  // With whole identities: the editor looks at them before its graph has nodes, and complains of short ones.
  const form = first.extra?.linearData;
  if (form?.inputs && first.id) form.inputs = form.inputs.map(([id, name]) => [`${first.id}:${id}:${encodeURIComponent(name)}`, name]);
  for (const key of Object.keys(defaultGraph)) delete defaultGraph[key];
  Object.assign(defaultGraph, first);
}

const answers = {
  async load({ workflow, name }) {
    await app.loadGraphData(workflow, true, true, name || null);
    return {};
  },
  async loadApi({ prompt, name }) { await app.loadApiJson(prompt, name || 'workflow'); return {}; },
  async get() {
    const { workflow, output } = await app.graphToPrompt();
    return { workflow, prompt: output, name: current()?.filename ?? '' };
  },
  async set({ values }) {
    for (const [key, value] of Object.entries(values)) {
      const at = key.indexOf('.'), name = key.slice(at + 1);
      const node = app.rootGraph.nodes.find((one) => String(one.id) === key.slice(0, at));
      const widget = node?.widgets?.find((one) => one.name === name);
      if (!widget || widget.value === value) continue;
      widget.value = value;
      widget.callback?.(value);
    }
    app.canvas?.setDirty(true, true);
    remember();
    return {};
  },
  async choose({ data }) {
    app.rootGraph.extra ??= {};
    app.rootGraph.extra.linearData = data;
    remember();
    return {};
  },
  async queue() { return { queued: await app.queuePrompt(0, 1) }; },
  async look({ locale, palette }) {
    const settings = app.extensionManager.setting;
    if (locale && settings.get('Comfy.Locale') !== locale) await settings.set('Comfy.Locale', locale);
    if (palette && settings.get('Comfy.ColorPalette') !== palette) await settings.set('Comfy.ColorPalette', palette);
    return {};
  },
};

/** What was changed from outside counts as a change of the editor's own, so that undo and saving know of it. */
function remember() { current()?.changeTracker?.captureCanvasState?.() ?? current()?.changeTracker?.checkState?.(); }

let told = false;
/** Once, when the editor has loaded what it starts with: before that its graph is empty. */
function ready() {
  if (told) return;
  told = true;
  say({ easel: 'told', what: 'ready' });
}

app.registerExtension({
  name: 'easel.bridge',
  afterConfigureGraph() { setTimeout(ready, 0); },
  async setup() {
    addEventListener('message', async ({ origin, data }) => {
      if (origin !== location.origin || data?.easel !== 'ask') return;
      try {
        say({ easel: 'answer', id: data.id, ...(await answers[data.what](data)) });
      } catch (error) {
        say({ easel: 'answer', id: data.id, error: String(error?.message ?? error) });
      }
    });
    let timer;
    const changed = () => { clearTimeout(timer); timer = setTimeout(() => say({ easel: 'told', what: 'changed' }), 300); };
    api.addEventListener('graphChanged', changed);
    api.addEventListener('promptQueued', changed);  // seeds are drawn anew
    setTimeout(ready, 10000);
  },
});
