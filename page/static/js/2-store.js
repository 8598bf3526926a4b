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
	const link = () => new URLSearchParams(location.search).get("persona") ?? "";
	const place = (at = link()) => `now:${at && `${at}:`}`; // the tab's chat at this address, to which the back button may lead again
	const now = {
		set(key, value) {
			tab.set(place() + key, value);
			all.set(`now:${key}`, value);
		},
	};
	const said = (record) => JSON.stringify(record.exchanges);
	const written = {}; // by a chat's id: what was said in it when this tab wrote it last
	const forks = {}; // by a chat's id: the one under which this tab goes on, since another tab goes on with it, too
	let current = null; // the record of the chat on the screen
	let opened = null; // what was said in it when the page opened
	let leaving = false; // nothing is kept any more
	let arrived = false; // the server's answer to what the page opened with, the kept settings among it
	let arrives;
	const arrival = new Promise((done) => (arrives = done));
	let settings = {}; // as this tab had them last

	// A damaged entry is left out; all the others go on.
	const list = (name) => {
		const whole = ({ title, persona } = {}) => typeof (title ?? persona?.name) === "string" && Array.isArray(persona?.sentences ?? []);
		const kept = all.get(name);
		return Array.isArray(kept) ? kept.filter((entry) => entry && whole(entry)) : [];
	};

	function take(text) {
		if (!text || leaving) return;
		const record = JSON.parse(text);
		record.id = idOf(record);
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

	// A tab that was duplicated has the chat of the first one, and both may go on: neither writes over what the other has said.
	function idOf(record) {
		const id = forks[record.id] ?? record.id;
		const there = all.get(`chat:${id}`);
		if (!there || written[id] === undefined || written[id] === said(there)) return id;
		return (forks[record.id] = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join(""));
	}

	function keepChat(record) {
		const known = list("chats");
		if (!record.exchanges.length || (said(record) === opened && !known.some((chat) => chat.id === record.id))) return;
		written[record.id] = said(record);
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

	// A server that has let go of the chat, or was started anew, answers 409: the page opens once more and brings its chat, and
	// the message that was being sent as a draft.
	const ask = window.fetch;
	window.fetch = async (address, options) => {
		if (options?.method !== "POST") return ask(address, options);
		const headers = new Headers(options.headers);
		if (current) headers.set(personaNames.opened, "yes");
		const answer = await ask(address, { ...options, headers });
		if (!answer.ok) arrives(); // nothing will come of a refused opening: go on without
		if (answer.status === 409 && !leaving) {
			leaving = true;
			location.reload();
		}
		return answer;
	};

	function leave() {
		leaving = true;
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
		arrival,

		// What is pressed while the page still opens counts for the chat that it opens with.
		onceOpen: (trigger) => (...event) => arrival.then(() => trigger(...event)),

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
			if (leaving) return;
			now.set("draft", [personaPage.sending, personaPage.typed()].filter(Boolean).join(" "));
		},

		arrived(...settings) {
			arrived = true;
			arrives();
			personaStore.keepSettings(...settings);
		},

		// Gradio reports the values of the start as changes, too; they must not take the place of kept ones.
		keepSettings(...values) {
			if (!arrived || leaving) return;
			const before = settings;
			settings = Object.fromEntries(personaNames.settings.map((name, k) => [name, values[k]]));
			const chosen = Object.entries(settings).filter(([name, value]) => value !== before[name]); // not what another tab has chosen since
			all.set("settings", { ...all.get("settings"), ...Object.fromEntries(chosen) });
		},

		// What the page opens with: this tab's chat, in a new tab the latest; a link to a persona begins afresh.
		brought(_kept, ...others) {
			settings = all.get("settings") ?? {};
			const back = performance.getEntriesByType("navigation")[0]?.type === "back_forward";
			const mine = (back || tab.get("now:link") === link()) && tab.get(`${place()}record`);
			const shared = personaShare.fromAddress();
			const kept = { settings, link: shared, draft: tab.get(`${place(tab.get("now:link") ?? "")}draft`) };
			if (shared === undefined && (mine || !link())) {
				const from = (key) => (mine ? tab.get(place() + key) : all.get(`now:${key}`));
				if (mine) written[mine.id] = said(mine);
				const record = mine ? withGrowing(mine) : from("record");
				if (record && !mine) delete record.id; // the other tab may go on with its own
				if (record) opened = said(record);
				Object.assign(kept, { chat: record && JSON.stringify(record), text: from("text"), draft: from("draft") });
			}
			for (const key of ["text", "draft"]) if (kept[key]) now.set(key, kept[key]); // of another tab or address
			tab.remove("growing");
			const text = document.querySelector("#persona-text textarea");
			text.addEventListener("input", () => leaving || now.set("text", text.value));
			return [JSON.stringify(kept), ...others];
		},

		forget() {
			all.clear();
			leave();
		},
	};
})();
