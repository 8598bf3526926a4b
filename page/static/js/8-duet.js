// Two personas that talk: the choice of the second one, and the call for each next line.
window.personaDuet = {
	menu(element, trigger) {
		personaPage.clicks(element, trigger);
		const { element: make, face, list } = personaStore;
		const panel = element.querySelector("[popover]");
		panel.addEventListener("beforetoggle", (event) => {
			if (event.newState !== "open") return;
			panel.querySelectorAll(".own").forEach((row) => row.remove());
			const rows = list("personas").map(({ persona }) => {
				const button = make("button", "", "", face(persona.face || ""), make("span", "", persona.name));
				Object.assign(button.dataset, { event: personaNames.events.talk, who: "own", text: JSON.stringify(persona) });
				return make("li", "own", "", button);
			});
			panel.querySelector("ul").prepend(...rows);
		});
	},

	// Each line is asked for on its own, when the one before has been said.
	watch(element, trigger) {
		let asked = null;
		new MutationObserver(() => {
			const next = element.querySelector("[data-next]")?.dataset.next ?? null;
			if (next !== null && next !== asked) trigger(personaNames.events.nextLine, {});
			asked = next;
		}).observe(element, { childList: true, subtree: true, attributes: true }); // Gradio changes what differs
	},
};
