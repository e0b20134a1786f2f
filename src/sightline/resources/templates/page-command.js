// The command of a page: ticks add their flags, a button copies it.
const command = document.getElementById('command');
const ticks = [...document.querySelectorAll('.tick input')];
const write = () => {
  const flags = new Map();
  for (const { dataset } of ticks.filter((tick) => tick.checked)) {
    const values = flags.get(dataset.flag) ?? [];
    flags.set(dataset.flag, values.includes(dataset.value) ? values : [...values, dataset.value]);
  }
  command.textContent = [command.dataset.plain, ...[...flags].flatMap(([flag, values]) => [flag, ...values])].join(' ');
};
ticks.forEach((tick) => tick.addEventListener('change', write));
if (ticks.length) write(); // a page that is loaded anew keeps its ticks
const copy = document.getElementById('copy');
copy.hidden = false;
copy.addEventListener('click', async () => {
  getSelection().selectAllChildren(command);
  try {
    await navigator.clipboard.writeText(command.textContent);
  } catch {
    document.execCommand('copy'); // where the clipboard is closed to pages
  }
  copy.textContent = 'Copied';
  setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
});
