// What the browser does on its own: pass clicks in our HTML on as events, send at once, keep the newest message in view
// and the focus where it was.
window.personaPage = {
	sending: null, // the message that the server has not taken yet
	draft: null, // what stood in the message box before an earlier message was edited
	edited: null, // that message, while it is edited
	pressed: "", // the card that was pressed last
	byHand: { text: null, name: null }, // what somebody typed last as the persona's text and as its name

	clicks(element, trigger) {
		trigger = personaStore.onceOpen(trigger);
		element.addEventListener("click", (event) => {
			const button = event.target.closest("button[data-event]");
			if (!button) return;
			button.closest("[popover]")?.hidePopover();
			if (button.dataset.who) personaPage.pressed = button.dataset.who;
			if (button.closest("#cast")) personaPage.another();
			trigger(button.dataset.event, { ...button.dataset });
		});
		// A button that is drawn anew keeps the focus; when it is gone, the message box has it.
		let focused = null;
		element.addEventListener("focusin", (event) => (focused = event.target.closest("button[data-event]")));
		element.addEventListener("focusout", (event) => {
			if (event.target.isConnected && event.relatedTarget) focused = null;
		});
		new MutationObserver(() => {
			if (!focused || focused.isConnected) return;
			const { event, who, number, step } = focused.dataset;
			focused = null;
			const same = (b) => b.dataset.event === event && b.dataset.who === who && b.dataset.number === number && b.dataset.step === step;
			const again = [...element.querySelectorAll("button[data-event]")].find(same);
			again ? again.focus({ preventScroll: true }) : personaPage.focusMessage();
		}).observe(element, { childList: true, subtree: true });
	},

	// Scrolls along while the reader is at the end, and always when a message was added.
	follow(element) {
		const box = element.closest("#scroll");
		let atEnd = true;
		let messages = 0;
		const listen = personaHeard.listener(box, element);
		box.addEventListener("scroll", () => (atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48));
		new MutationObserver(() => {
			const count = box.querySelectorAll(".you").length;
			if (atEnd || count > messages) box.scrollTop = count ? box.scrollHeight : 0;
			messages = count;
			personaStore.growing(element.querySelector(".them [data-writing]")?.textContent);
			listen();
		}).observe(box, { childList: true, subtree: true, characterData: true });
	},

	start() {
		// A Space's frame grows with its content: what follows the frame's height would grow for ever. The screen's height, less
		// what the site and the browser take of it, leaves the message box in sight.
		const height = `clamp(400px, ${screen.height - 340}px, 720px)`;
		if (window.self !== window.top) {
			document.documentElement.style.setProperty("--talk-height", height);
			document.addEventListener("toggle", ({ target, newState }) => newState === "open" && personaPage.intoSight(target), true);
		}
		personaPage.box().addEventListener("input", () => personaStore.draft());
		personaPage.focusMessage();
		const typed = ({ target }) => {
			if (target.closest("#persona-text")) personaPage.byHand.text = target.value;
			if (target.closest("#persona-name")) personaPage.byHand.name = target.value;
		};
		document.addEventListener("input", typed, true); // before Gradio tells of it
		const edits = { childList: true, subtree: true, attributeFilter: ["data-editing"] };
		let editing = false;
		new MutationObserver(() => {
			const before = editing;
			editing = personaPage.editing();
			if (before && !editing) personaPage.endEdit();
			if (!before && editing) personaHeard.say(document.querySelector("#editing p").textContent);
			personaPage.edited = editing ? document.querySelector("[data-editing] p").textContent : null;
		}).observe(document.getElementById("transcript"), edits);
	},

	// The middle of a frame that is as high as its content may be out of sight; an observer knows what of it is seen.
	intoSight(panel) {
		const place = ([{ intersectionRect: seen }], observer) => {
			observer.disconnect();
			panel.style.maxHeight = `min(36rem, ${seen.height - 16}px)`;
			panel.style.inset = `${seen.top + (seen.height - panel.offsetHeight) / 2}px 0 auto`;
		};
		if (panel.matches("[popover]")) new IntersectionObserver(place).observe(document.documentElement);
	},

	// What is still to be told of one persona's name and text is not the next one's.
	another() {
		personaPage.byHand = { text: null, name: null };
	},

	lastPressed(_pressed, ...others) {
		return [personaPage.pressed, ...others];
	},

	// Gradio reports what an answer wrote into a box as a change, too. The server knows that; by the time it would hear of it,
	// another card may have been pressed, and the new persona would get the former one's words.
	textTyped(text, ...others) {
		return [text === personaPage.byHand.text ? text : null, ...others];
	},

	nameTyped(name, ...others) {
		return [name === personaPage.byHand.name ? name : null, ...others];
	},

	// A rewritten persona has another name, but one that was typed before the answer came stays.
	nameTold(now, told) {
		return told === null || now === personaPage.byHand.name ? now : told;
	},

	box() {
		return document.querySelector("#composer textarea");
	},

	setBox(text) {
		const box = personaPage.box();
		if (box.value === text) return;
		box.value = text;
		box.dispatchEvent(new Event("input", { bubbles: true })); // Gradio's component follows
	},

	focusMessage() {
		if (matchMedia("(pointer: fine)").matches) personaPage.box().focus({ preventScroll: true }); // a phone would open its keyboard
	},

	editing() {
		return document.querySelector("[data-editing]") !== null;
	},

	// Leads to another part of the page, and the focus too; a phone would open its keyboard for a field.
	lead(to, field) {
		const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
		to.scrollIntoView({ behavior: still ? "auto" : "smooth" });
		to.tabIndex = -1;
		(matchMedia("(pointer: fine)").matches ? to.querySelector(field) : to).focus({ preventScroll: true });
	},

	// The box clears and the message stands in the chat before the server has answered; what it would refuse stays in the box.
	async sent(message, _text, ...others) {
		const letters = [...message].length; // as the server counts them
		if (personaPage.sending === null && message.trim() && letters <= personaLimits.messageChars) {
			personaPage.sending = message;
			if (personaPage.editing()) personaPage.endEdit(personaPage.draft);
			else {
				personaPage.setBox(personaPage.box().value.slice(message.length)); // typed since
				document.getElementById("just-sent").append(personaPage.bubble(message.trim()));
			}
		}
		await personaStore.arrival; // of the chat that the message is for, and of its persona
		return [message, document.querySelector("#persona-text textarea").value, ...others];
	},

	bubble(message) {
		const list = document.createElement("ol");
		list.className = "talk";
		list.innerHTML = '<li class="you"><div class="said"><span class="by">You</span><p dir="auto"></p></div></li>';
		list.querySelector("p").textContent = message;
		return list;
	},

	// The server has taken the message, and drawn it.
	taken() {
		if (personaPage.sending === null) return;
		document.querySelector("#just-sent ol")?.remove();
		personaPage.sending = null;
		personaStore.draft();
	},

	// The server did not take the message: it is back in the box, in front of what was typed since.
	refused() {
		if (personaPage.sending === null) return;
		const [message, typed] = [personaPage.sending, personaPage.box().value];
		document.querySelector("#just-sent ol")?.remove();
		personaPage.sending = null;
		if (personaPage.editing()) personaPage.draft = typed;
		personaPage.setBox(personaPage.editing() ? message : [message, typed].filter(Boolean).join(" "));
	},

	// All that somebody has typed in the message box: the draft, and behind it what was changed of the message that is edited.
	typed() {
		const box = personaPage.box().value;
		if (personaPage.draft === null || personaPage.edited === null) return box;
		return [personaPage.draft, box === personaPage.edited ? "" : box].filter(Boolean).join(" ");
	},

	beforeEdit(...inputs) {
		personaPage.draft = personaPage.typed();
		return inputs;
	},

	// Whatever ends an edit, what was typed stays.
	endEdit(text = personaPage.typed()) {
		if (personaPage.draft === null) return;
		personaPage.draft = null;
		personaPage.setBox(text);
	},

	// .. but for what is cancelled.
	cancelled(...inputs) {
		if (personaPage.edited !== null) personaPage.setBox(personaPage.edited);
		return inputs;
	},

	// What an answer puts into the box returns in front of what was typed, not of the message that was edited.
	leaveEdit(_message, ...others) {
		if (personaPage.editing()) personaPage.endEdit();
		return [personaPage.box().value, ...others];
	},

	async copyLink() {
		const query = document.querySelector("#header .who").dataset.link;
		return (await personaShare.copy(location.origin + location.pathname + query)) ? "persona" : "";
	},
};

// What buttons do that no server is asked for: they work from the first moment.
document.addEventListener("click", (event) => {
	const button = event.target.closest("button");
	const { scroll, press, focus } = button?.dataset ?? {};
	if (scroll) personaPage.lead(document.getElementById(scroll), focus);
	else if (focus) document.querySelector(focus).focus();
	if (press) document.querySelector(press).click(); // Gradio's own button, in the footer that we hide
	if (button?.getAttribute("aria-controls") === "settings") button.ariaExpanded = String(button.ariaExpanded !== "true");
});
