// Keys: / goes to the message box, Up in an empty one edits the last message, Left and Right choose among replies,
// Escape ends what is going on.
document.addEventListener("keydown", (event) => {
	if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || !window.personaPage) return;
	const box = personaPage.box();
	const inEmptyBox = event.target === box && box.value === "";
	const inText = event.target.closest?.("input, textarea, [contenteditable]") && !inEmptyBox;
	const press = (selector) => {
		const button = [...document.querySelectorAll(selector)].at(-1);
		if (!button || button.disabled || !button.checkVisibility()) return false;
		button.click();
		event.preventDefault();
		return true;
	};
	if (event.key === "/" && !inText && !inEmptyBox) {
		box.focus();
		event.preventDefault();
	}
	if (event.key === "ArrowUp" && inEmptyBox) press(".pen");
	const steps = { ArrowLeft: "-1", ArrowRight: "1" };
	if (event.key in steps && !event.shiftKey && !inText && !document.querySelector(":popover-open")) press(`.alternatives [data-step="${steps[event.key]}"]`);
	if (event.key === "Escape" && !document.querySelector(":popover-open")) press("#keep") || press("#stop") || press(".api-docs .backdrop");
});
