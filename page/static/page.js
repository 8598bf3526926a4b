// What the browser does on its own: pass clicks in our HTML on as events, keep the newest message in view, copy a link.
window.personaPage = {
	clicks(element, trigger) {
		element.addEventListener("click", (event) => {
			const button = event.target.closest("button[data-event]");
			if (button) trigger(button.dataset.event, { ...button.dataset });
		});
	},

	// Scrolls along while the reader is at the end, and always when a message was added.
	follow(element) {
		const box = element.closest("#transcript");
		let atEnd = true;
		let messages = 0;
		box.addEventListener("scroll", () => (atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48));
		new MutationObserver(() => {
			const count = element.querySelectorAll(".talk > li").length;
			if (atEnd || count > messages) box.scrollTop = count ? box.scrollHeight : 0;
			messages = count;
		}).observe(element, { childList: true, subtree: true, characterData: true });
	},

	start() {
		document.addEventListener("click", (event) => {
			const { scroll, press } = event.target.closest("button")?.dataset ?? {};
			if (scroll) document.getElementById(scroll).scrollIntoView({ behavior: "smooth" });
			if (press) document.querySelector(press).click(); // Gradio's own button, in the footer that we hide
		});
		if (matchMedia("(pointer: fine)").matches) personaPage.focusMessage(); // a phone would open its keyboard
	},

	focusMessage() {
		document.querySelector("#composer textarea").focus({ preventScroll: true });
	},

	async copyLink() {
		const query = document.querySelector("#header .who").dataset.link;
		const link = location.origin + location.pathname + query;
		try {
			await navigator.clipboard.writeText(link);
		} catch {
			window.prompt("Copy this link:", link); // no clipboard outside https and localhost
		}
	},
};
