// Character cards and chats as files. A picture is only looked through for its text chunks, never drawn or passed on.
window.personaCards = {
	SIGNATURE: [137, 80, 78, 71, 13, 10, 26, 10],

	// {text, bytes} for the server: the JSON that a file holds, or nothing when it holds none or is too large to be read.
	async read(file) {
		if (file.size > personaLimits.fileBytes) return { text: "", bytes: file.size };
		const bytes = new Uint8Array(await file.arrayBuffer());
		const isPng = personaCards.SIGNATURE.every((byte, k) => bytes[k] === byte);
		const text = isPng ? personaCards.fromPng(bytes) : new TextDecoder().decode(bytes);
		return { text: personaCards.slim(text), bytes: file.size };
	},

	// A card without what is not read, such as a lorebook of a megabyte; anything else as it is, cut where it gets too long.
	slim(text) {
		const most = personaLimits.cardChars;
		if (text.length <= most) return text;
		try {
			const card = JSON.parse(text);
			if (card.persona_bot) return text.slice(0, personaLimits.chatChars + 1);
			const data = card.data ?? card;
			const { name, description, personality, first_mes } = data;
			const kept = { name, description, personality, first_mes };
			for (const key of personaLimits.unusedOfCards) if (data[key]?.length !== 0 && data[key]) kept[key] = true;
			return JSON.stringify({ spec: card.spec, data: kept }).slice(0, most + 1);
		} catch {
			return text.slice(0, most + 1);
		}
	},

	// The JSON in a text chunk of a PNG: `ccv3`, else `chara`, both base64.
	fromPng(bytes) {
		const view = new DataView(bytes.buffer);
		const latin = (from, to) => new TextDecoder("latin1").decode(bytes.subarray(from, to));
		const found = {};
		for (let at = 8; at + 12 <= bytes.length; ) {
			const end = at + 8 + view.getUint32(at);
			if (end + 4 > bytes.length) break;
			const zero = bytes.indexOf(0, at + 8);
			if (latin(at + 4, at + 8) === "tEXt" && zero > 0 && zero < end) found[latin(at + 8, zero).toLowerCase()] ??= [zero + 1, end];
			at = end + 4;
		}
		const place = found.ccv3 ?? found.chara;
		try {
			return new TextDecoder().decode(Uint8Array.from(atob(latin(...place)), (c) => c.charCodeAt(0)));
		} catch {
			return "";
		}
	},

	// Our own picture of the face, with the card in its text chunks: {face, chara, ccv3}.
	async png({ face, ...chunks }) {
		const canvas = document.createElement("canvas");
		[canvas.width, canvas.height] = [512, 512];
		const brush = canvas.getContext("2d");
		brush.fillStyle = "#f2efe9";
		brush.fillRect(0, 0, 512, 512);
		const symbol = personaStore.face(face).querySelector("use")?.getAttribute("href");
		if (symbol) {
			const drawing = document.querySelector(symbol).innerHTML;
			const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="384" height="384" viewBox="0 0 36 36">${drawing}</svg>`;
			const picture = new Image();
			picture.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
			await picture.decode();
			brush.drawImage(picture, 64, 64);
		} else {
			brush.font = "300px sans-serif";
			brush.textAlign = "center";
			brush.fillText(face || "🎭", 256, 360);
		}
		const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
		const bytes = new Uint8Array(await blob.arrayBuffer());
		const added = Object.entries(chunks).map(([key, json]) => personaCards.chunk(key, json));
		return new Blob([bytes.subarray(0, -12), ...added, bytes.subarray(-12)], { type: "image/png" }); // the last 12: IEND
	},

	chunk(key, json) {
		const words = [...new TextEncoder().encode(json)].map((byte) => String.fromCharCode(byte)).join("");
		const body = new TextEncoder().encode(`tEXt${key}\0${btoa(words)}`);
		const bytes = new Uint8Array(body.length + 8);
		const view = new DataView(bytes.buffer);
		view.setUint32(0, body.length - 4);
		bytes.set(body, 4);
		view.setUint32(body.length + 4, personaCards.crc(body));
		return bytes;
	},

	crc(bytes) {
		let crc = -1;
		for (const byte of bytes) {
			crc ^= byte;
			for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
		}
		return ~crc >>> 0;
	},
};
