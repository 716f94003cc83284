// Dark, light, or as the system has it.

const CHOICES = ['auto', 'dark', 'light'];
const NAMES = { auto: 'Auto', dark: 'Dark', light: 'Light' };
const listeners = new Set();

/** Calls back after colours have changed. */
export const onTheme = (call) => listeners.add(call);

const probe = document.createElement('span');
const resolved = new Map();

/** A colour of the style sheet as it is now, in a form that a canvas takes. */
export const colour = (name) => {
  if (!resolved.has(name)) {
    if (!probe.isConnected) {
      probe.hidden = true;
      document.body.append(probe);
    }
    probe.style.color = `var(--${name})`;
    resolved.set(name, getComputedStyle(probe).color);
  }
  return resolved.get(name);
};

const changed = () => {
  resolved.clear();
  listeners.forEach((call) => call());
};

/** Makes a button the switch. */
export const start = (button) => {
  const apply = (choice) => {
    document.documentElement.dataset.theme = choice;
    button.textContent = NAMES[choice];
    button.setAttribute('aria-label', `Colours: ${NAMES[choice]}`);
    changed();
  };
  let choice = localStorage.getItem('peregrine.theme');
  if (!CHOICES.includes(choice)) choice = 'auto';
  apply(choice);
  button.addEventListener('click', () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem('peregrine.theme', choice);
    apply(choice);
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
};
