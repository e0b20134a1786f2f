// The larger view closes by its button, a click beside it, or Escape.
const close = () => { if (element.querySelector('.sl-veil')) props.value = ''; };
element.addEventListener('click', (event) => {
  if (event.target.closest('.sl-close') || event.target.classList.contains('sl-veil')) close();
});
document.addEventListener('keydown', (event) => { if (event.key === 'Escape') close(); });
watch('value', () => element.querySelector('.sl-close')?.focus());
