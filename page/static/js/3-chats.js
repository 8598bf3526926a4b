// The list of earlier chats and the cards of one's own personas, drawn from what this browser keeps; all of it as text.
Object.assign(personaStore, {
	NOT_KEPT: "This browser forbids pages to keep anything: a chat is gone with its tab.",

	face(emoji) {
		const span = document.createElement("span");
		span.className = "face";
		span.setAttribute("aria-hidden", "true");
		const name = [...emoji].map((c) => c.codePointAt(0).toString(16)).filter((code) => code !== "fe0f").join("-");
		if (document.getElementById(`face-${name}`)) span.innerHTML = `<svg><use href="#face-${name}"></use></svg>`;
		else span.textContent = emoji || "🎭";
		return span;
	},

	element(tag, className, text, ...children) {
		const made = document.createElement(tag);
		made.className = className;
		if (tag === "button") made.type = "button";
		if (text) made.textContent = text;
		made.append(...children);
		return made;
	},

	cards(element, trigger) {
		trigger = personaStore.onceOpen(trigger);
		const { element: make, face, list } = personaStore;
		const draw = () => {
			const before = [...element.querySelectorAll(".card")].indexOf(document.activeElement);
			const cards = list("personas").map(({ persona }) => {
				const [called, ...title] = persona.name.split(",");
				const name = make("span", "name", called, make("small", "", title.join(",").trim() || "yours"));
				const card = make("button", "card", "", face(persona.face || ""), name);
				card.ariaPressed = String(personaStore.isCurrent(persona));
				card.addEventListener("click", personaPage.another);
				card.addEventListener("click", () => trigger(personaNames.events.openPersona, { text: JSON.stringify(persona) }));
				return card;
			});
			const group = make("div", "cards", "", ...cards);
			group.setAttribute("role", "group");
			group.setAttribute("aria-label", "Your personas");
			element.replaceChildren(...(cards.length ? [group] : []));
			cards[before]?.focus({ preventScroll: true });
		};
		document.addEventListener("persona-store", draw);
		draw();
	},

	earlier(element, trigger) {
		trigger = personaStore.onceOpen(trigger);
		const { element: make, face, list, all } = personaStore;
		const panel = element.querySelector("[popover]");
		const entries = panel.querySelector("ul");

		// A second press on the same button does it; `what` it forgets is told who does not see the question.
		const sure = (button, question, what, then) => {
			const [words, name] = [button.textContent, button.ariaLabel];
			button.addEventListener("click", () => {
				if (button.dataset.sure) return then();
				button.dataset.sure = "true";
				button.textContent = question;
				if (name) button.ariaLabel = `${question} ${what}`;
				personaHeard.say(`Press again to forget ${what}.`);
			});
			// the other buttons stay as they are, since one of them is being pressed
			button.addEventListener("blur", () => {
				delete button.dataset.sure;
				button.textContent = words;
				button.ariaLabel = name;
			});
		};

		const row = (picture, title, about, press, forget) => {
			const open = make("button", "open", "", picture, make("span", "", "", make("b", "", title), make("small", "", about)));
			open.addEventListener("click", () => {
				panel.hidePopover();
				press();
			});
			const cross = make("button", "quiet cross", "×");
			cross.setAttribute("aria-label", `Forget “${title}”`);
			sure(cross, "Forget?", `“${title}”`, () => {
				const place = [...entries.querySelectorAll(".cross")].indexOf(cross);
				forget();
				draw();
				([...entries.querySelectorAll(".cross")].slice(0, place + 1).at(-1) ?? panel.querySelector(".forget")).focus();
				document.dispatchEvent(new Event("persona-store"));
			});
			return make("li", "", "", open, cross);
		};

		const draw = () => {
			const chats = list("chats").map((chat) =>
				row(
					face(chat.face || ""),
					chat.title,
					`${chat.name}, ${new Date(chat.at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`,
					() => trigger(personaNames.events.openChat, { text: JSON.stringify(all.get(`chat:${chat.id}`)) }),
					() => {
						all.remove(`chat:${chat.id}`);
						all.set("chats", list("chats").filter((other) => other.id !== chat.id));
					},
				),
			);
			const personas = list("personas").map(({ id, persona }) =>
				row(
					face(persona.face || ""),
					persona.name,
					"your persona",
					() => trigger(personaNames.events.openPersona, { text: JSON.stringify(persona) }),
					() => all.set("personas", list("personas").filter((other) => other.id !== id)),
				),
			);
			const rows = [...chats, ...personas];
			const keeps = all.set("chats", list("chats"));
			entries.replaceChildren(...(rows.length ? rows : [make("li", "none", keeps ? "No chat yet." : personaStore.NOT_KEPT)]));
			panel.querySelector("p").hidden = !keeps;
			const forget = panel.querySelector(".forget");
			const fresh = forget.cloneNode(false);
			fresh.textContent = "Forget everything";
			delete fresh.dataset.sure;
			sure(fresh, "Sure? Forget everything", "everything", personaStore.forget);
			forget.replaceWith(fresh);
		};
		panel.addEventListener("beforetoggle", (event) => event.newState === "open" && draw());
	},
});
