// What leaves the page: links, copies, files. The server writes them; here they reach the clipboard or the disk.
window.personaShare = {
	// A parcel is {kind, name, text}: for the clipboard ("copy", "link"), a picture ("png"), or a file of that kind.
	// Returns the kind of what was copied.
	async deliver(json) {
		if (!json) return "";
		const { kind, name, text } = JSON.parse(json);
		const link = `${location.origin}${location.pathname}#chat=${text}`;
		if (kind === "copy" || kind === "link") return (await personaShare.copy(kind === "link" ? link : text)) ? kind : "";
		if (kind === "png") personaShare.save(await personaCards.png(JSON.parse(text)), name);
		else personaShare.save(new Blob([text], { type: kind }), name);
		return "";
	},

	// Whether it was copied, as far as anybody can tell.
	async copy(text) {
		try {
			await navigator.clipboard.writeText(text);
			return true;
		} catch {
			return window.prompt("Copy this:", text) !== null; // no clipboard outside https and localhost
		}
	},

	save(blob, name) {
		const link = document.createElement("a");
		link.href = URL.createObjectURL(blob);
		link.download = name;
		link.click();
		setTimeout(() => URL.revokeObjectURL(link.href), 60000);
	},

	// Takes the conversation out of the address, so that a reload goes on with what was said since.
	fromAddress() {
		const found = location.hash.match(/^#chat=([\w-]*)/)?.[1]; // not the full stop or the bracket of a text around it
		if (found !== undefined) history.replaceState(null, "", location.pathname + location.search);
		return found;
	},

	// The menu: its buttons ask the server for a parcel; a file is read here (6-cards.js).
	menu(element, trigger) {
		personaPage.clicks(element, trigger);
		const input = element.querySelector("input");
		element.querySelector("[data-open]").addEventListener("click", () => input.click());
		input.addEventListener("change", async () => {
			const file = input.files[0];
			input.value = "";
			element.querySelector("[popover]").hidePopover();
			if (file) trigger(personaNames.events.openFile, await personaCards.read(file));
		});
	},
};

document.addEventListener("click", async (event) => {
	const button = event.target.closest?.("button[data-copy]");
	if (!button) return;
	if (!(await personaShare.copy(button.closest(".said").querySelector("p").textContent))) return;
	button.dataset.done = "true";
	personaHeard.say("Copied");
	setTimeout(() => delete button.dataset.done, 1500);
});

// A link to another conversation, opened where the page is already.
addEventListener("hashchange", () => location.hash.startsWith("#chat=") && location.reload());
