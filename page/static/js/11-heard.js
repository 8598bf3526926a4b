// What screen readers are told of what others see: each once, and not found a second time when reading through the page.
window.personaHeard = {
	say(text) {
		const line = personaStore.element("p", "", text);
		document.querySelector("#announcer [aria-live]").append(line);
		setTimeout(() => line.remove(), 5000);
	},

	// Tells what either persona has said, the reply that was chosen, and what stands behind them; nothing that was heard already.
	listener(box, growing) {
		let heard = [];
		let count = 0;
		let writing = false;
		let notice = "";
		return () => {
			const all = box.querySelectorAll("#transcript :is(.them, .you:has(> .face)) .said"); // whoever has a face
			const last = [...all].at(-1);
			const words = `${all.length} ${last?.querySelector("p").textContent}`;
			const stillWriting = growing.querySelector("li") !== null;
			const chosen = !stillWriting && all.length === count && last?.querySelector(".alternatives");
			if (last && (writing || chosen) && !heard.includes(words)) personaHeard.say([".by", "p"].map((part) => last.querySelector(part).textContent).join(": "));
			// Retry takes the last reply away until there is another one: Stop brings it back
			heard = stillWriting ? [...heard, words] : [words];
			[count, writing] = [all.length, stillWriting];
			const before = notice;
			notice = box.querySelector("#transcript .notice:last-child")?.textContent ?? "";
			if (notice !== before && notice) personaHeard.say(notice);
		};
	},
};
