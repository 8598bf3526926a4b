// What this browser keeps: the chat of each tab, the last chats, the personas that somebody wrote, the settings.
// The server keeps none of it and checks all that comes back.
window.personaStore = (() => {
	const PREFIX = "persona-bot:";
	const MOST = personaLimits.kept; // chats, and personas; the oldest goes first
	const open = (name) => {
		const of = () => window[name]; // reading it throws where the browser forbids storage
		return {
			get(key) {
				try {
					return JSON.parse(of().getItem(PREFIX + key));
				} catch {
					return null;
				}
			},
			set(key, value) {
				try {
					of().setItem(PREFIX + key, JSON.stringify(value));
					return true;
				} catch {
					return false;
				}
			},
			remove(key) {
				try {
					of().removeItem(PREFIX + key);
				} catch {}
			},
			clear() {
				try {
					Object.keys(of()).filter((key) => key.startsWith(PREFIX)).forEach((key) => of().removeItem(key));
				} catch {}
			},
		};
	};
	const tab = open("sessionStorage");
	const all = open("localStorage");
	const now = { set: (key, value) => [tab, all].forEach((storage) => storage.set(`now:${key}`, value)) };
	let current = null; // the record of the chat on the screen
	let opened = null; // what was said in it when the page opened
	let forgotten = false;
	let arrived = false; // the server's answer to what the page opened with, the kept settings among it

	const link = () => new URLSearchParams(location.search).get("persona") ?? "";
	const list = (name) => (Array.isArray(all.get(name)) ? all.get(name) : []);

	function take(text) {
		if (!text || forgotten) return;
		const record = JSON.parse(text);
		if (record.exchanges.every((exchange) => exchange.replies.length)) tab.remove("growing");
		const another = current && current.id !== record.id && JSON.stringify(current.persona) !== JSON.stringify(record.persona);
		if (another) now.set("text", null); // it was typed for the persona before
		current = record;
		if (record.exchanges.at(-1)?.message === personaPage.sending?.trim()) personaPage.taken(); // drawn in the same step
		now.set("record", record);
		tab.set("now:link", link());
		keepChat(record);
		keepPersona(record);
		document.dispatchEvent(new Event("persona-store"));
	}

	function keepChat(record) {
		const said = JSON.stringify(record.exchanges);
		const known = list("chats");
		if (!record.exchanges.length || (said === opened && !known.some((chat) => chat.id === record.id))) return;
		const { name, face } = record.persona;
		const entry = { id: record.id, at: Date.now(), title: record.exchanges[0].message.slice(0, 80), name, face };
		const chats = [entry, ...known.filter((chat) => chat.id !== record.id)];
		chats.splice(MOST).forEach((chat) => all.remove(`chat:${chat.id}`));
		while (!all.set(`chat:${record.id}`, record) && chats.length > 1) all.remove(`chat:${chats.pop().id}`);
		all.set("chats", chats);
	}

	// A persona keeps the id under which it was written first: a new chat with it may make another one of it.
	function keepPersona({ id, own, persona }) {
		if (own && !persona.sentences.length) return; // about to be written anew
		const same = (other) => JSON.stringify(other.persona.sentences) === JSON.stringify(persona.sentences);
		const known = list("personas").find(same);
		const kept = own ? [{ id: known?.id ?? id, persona }] : [];
		const others = list("personas").filter((other) => other.id !== id && !(own && same(other)));
		all.set("personas", [...kept, ...others].slice(0, MOST));
	}

	// A reply that was cut off with the connection counts as far as it came.
	function withGrowing(record) {
		const growing = tab.get("growing");
		const last = record?.exchanges?.at(-1);
		if (!growing?.text || !last || growing.id !== record.id || growing.count !== record.exchanges.length) return record;
		last.shown = last.replies.push(growing.text) - 1;
		return record;
	}

	function leave() {
		forgotten = true;
		tab.clear();
		location.replace(location.pathname);
	}

	// Another tab, or the browser itself, has forgotten everything.
	addEventListener("storage", ({ key, newValue }) => {
		if (key === null || (key === `${PREFIX}now:record` && newValue === null)) leave();
	});

	return {
		all,
		list,

		// Whether this persona of one's own is the one that is spoken to.
		isCurrent: (persona) => Boolean(current?.own) && JSON.stringify(current.persona) === JSON.stringify(persona),

		// The hidden element in which the server writes the record.
		keep(element) {
			const read = () => take(element.querySelector("data")?.value);
			new MutationObserver(read).observe(element, { childList: true, subtree: true, attributes: true });
		},

		growing(text) {
			if (text && current) tab.set("growing", { id: current.id, count: current.exchanges.length, text });
		},

		draft() {
			if (forgotten) return;
			now.set("draft", [personaPage.sending, personaPage.typed()].filter(Boolean).join(" "));
		},

		arrived(...settings) {
			arrived = true;
			personaStore.keepSettings(...settings);
		},

		// Gradio reports the values of the start as changes, too; they must not take the place of kept ones.
		keepSettings(...values) {
			if (arrived && !forgotten) all.set("settings", Object.fromEntries(personaNames.settings.map((name, k) => [name, values[k]])));
		},

		// What the page opens with: this tab's chat, in a new tab the latest; a link to a persona begins afresh.
		brought(_kept, ...others) {
			const settings = all.get("settings") ?? {};
			const again = tab.get("now:link") === link() && tab.get("now:record");
			const storage = again ? tab : link() ? null : all;
			const kept = { settings, link: personaShare.fromAddress(), draft: tab.get("now:draft") };
			if (storage && kept.link === undefined) {
				const record = again ? withGrowing(tab.get("now:record")) : all.get("now:record");
				if (record && !again) delete record.id; // the other tab may go on with its own
				if (record) opened = JSON.stringify(record.exchanges);
				Object.assign(kept, { chat: record && JSON.stringify(record), text: storage.get("now:text"), draft: storage.get("now:draft") });
			}
			tab.remove("growing");
			const text = document.querySelector("#persona-text textarea");
			text.addEventListener("input", () => forgotten || now.set("text", text.value));
			return [JSON.stringify(kept), ...others];
		},

		forget() {
			all.clear();
			leave();
		},
	};
})();
