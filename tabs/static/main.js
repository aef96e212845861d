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
