// The larger view closes by its button, a click beside it, or Escape; the focus stays within it, and returns after it.
let picked = null; // the number of the picture that was opened last
document.addEventListener('click', (event) => { picked = event.target.closest('.sl-card')?.dataset.pick ?? picked; });
const close = () => {
  if (!element.querySelector('.sl-veil')) return;
  props.value = '';
  document.querySelector(`.sl-card[data-pick="${picked}"]`)?.focus();
};
element.addEventListener('click', (event) => {
  if (event.target.closest('.sl-close') || event.target.classList.contains('sl-veil')) close();
});
document.addEventListener('keydown', (event) => {
  if (!element.querySelector('.sl-veil')) return;
  if (event.key === 'Escape') close();
  if (event.key === 'Tab') event.preventDefault(); // the button that closes it is all that it has
});
watch('value', () => { if (props.value) element.querySelector('.sl-close')?.focus(); });
