// The sentences that the newest reply used are marked in the persona's text box, too, while its reader points at them or has them open.
window.personaWhy = {
	watch(element) {
		const used = () => JSON.parse(element.querySelector("data")?.value ?? "[]");
		const show = (on) => personaWhy.mark(on ? used() : []);
		const isOpen = () => element.querySelector("details")?.open;
		element.addEventListener("pointerenter", () => show(true));
		element.addEventListener("pointerleave", () => show(isOpen()));
		element.addEventListener("focusin", () => show(true));
		element.addEventListener("focusout", () => show(isOpen()));
		element.addEventListener(
			"toggle",
			() => {
				show(isOpen());
				element.querySelector("details").scrollIntoView({ block: "nearest" }); // it opens beneath the chat's last line
			},
			true,
		);
		new MutationObserver(() => show(false)).observe(element, { childList: true, subtree: true, attributeFilter: ["value"] });
	},

	// A text box cannot mark words: the same text lies over it, see-through, with marks in it.
	mark(sentences) {
		document.getElementById("marks")?.remove();
		const box = document.querySelector("#persona-text textarea");
		const found = sentences.filter((sentence) => box.value.includes(sentence));
		if (!found.length) return;
		const over = document.createElement("div");
		over.id = "marks";
		over.setAttribute("aria-hidden", "true");
		const style = getComputedStyle(box);
		for (const name of ["font", "letterSpacing", "lineHeight", "padding", "textAlign", "direction", "unicodeBidi"]) over.style[name] = style[name];
		const place = { left: box.offsetLeft + box.clientLeft, top: box.offsetTop + box.clientTop, width: box.clientWidth, height: box.clientHeight };
		for (const [name, value] of Object.entries(place)) over.style[name] = `${value}px`;
		let rest = box.value;
		while (rest) {
			const next = found.map((sentence) => [rest.indexOf(sentence), sentence]).filter(([at]) => at >= 0).sort(([a], [b]) => a - b)[0];
			over.append(next ? rest.slice(0, next[0]) : rest);
			if (!next) break;
			const mark = document.createElement("mark");
			mark.textContent = next[1];
			over.append(mark);
			rest = rest.slice(next[0] + next[1].length);
		}
		box.after(over);
		over.scrollTop = box.scrollTop;
		box.addEventListener("scroll", () => (over.scrollTop = box.scrollTop), { passive: true });
		box.addEventListener("input", () => over.remove(), { once: true });
	},
};
