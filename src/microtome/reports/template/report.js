// Pointing at a mark shows the text that the renderer wrote for screen readers, one field a line; only as text.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest ? event.target.closest('.plot svg [aria-roledescription][role="graphics-symbol"][aria-label]') : null;
  const said = mark && !mark.closest('[aria-roledescription="axis"],[aria-roledescription="legend"]') && !mark.classList.contains("mark-group") ? mark.getAttribute("aria-label") : "";
  tip.hidden = !said || !said.includes(": ");
  if (tip.hidden) return;
  tip.textContent = said.split("; ").join("\n");
  const right = event.clientX + 340 > innerWidth;
  tip.style.left = right ? "auto" : event.clientX + 14 + "px";
  tip.style.right = right ? innerWidth - event.clientX + 14 + "px" : "auto";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
});
