// Loads every live part of the page.
import './job.js';
import './start.js';
import './take.js';
import './workflow.js';
import './queue.js';
import './gallery.js';
import './dataset/element.js';
import './curve.js';
import './system.js';
import './packs.js';
import './tokens.js';
import './search.js';
import './chrome.js';

// What folds out over the page folds in again when one turns to something else.
const fold = (event) => document.querySelectorAll('.ez-pop[open]').forEach((pop) => { if (event.key === 'Escape' || event.type === 'click' && !pop.contains(event.target)) pop.open = false; });
for (const name of ['click', 'keydown']) document.addEventListener(name, fold);
