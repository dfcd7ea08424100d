/**
 * 256 OpenMoji pictures that most people could name and that look different at 32 × 32 pixels: the set 'popular'.
 * A key only says what kind a row holds; a picture's captions come from OpenMoji itself.
 */
export const popular: Record<string, string> = {
  faces: '😀 😂 😉 😊 😇 😍 🤩 😘 😋 😜 🤔 😐 😴 😷 🤢 🥶 🤯 🤠 🥳 😎 🤓 😮 😢 😭 😱 😡 😈 💀 💩 🤡 👻 👽 👾 🤖',
  hearts: '❤ 🧡 💛 💚 💙 💜 🤎 🖤 🩷 🩵 💔 💘 💝',
  shapes: '🔴 🟠 🟡 🟢 🔵 🟣 🟤 ⚫ 🟥 🟧 🟨 🟩 🟦 🟪 🟫 ⬛ 🔶 🔷 🔺',
  mammals: '🐵 🐶 🐺 🦊 🐱 🦁 🐯 🐴 🦄 🐮 🐷 🐭 🐰 🐻 🐨 🐼 🦓 🦒 🐘 🦔',
  birds: '🐔 🐤 🐧 🦆 🦉 🦩 🦜 🦚',
  reptiles: '🐸 🐊 🐢 🐍 🐲 🦖',
  sea: '🐳 🐬 🐟 🐠 🐡 🦈 🐙 🐚 🦀',
  insects: '🐌 🦋 🐛 🐝 🐞 🕷',
  flowers: '🌸 🌹 🌺 🌻 🌼 🌷 💐',
  plants: '🌱 🌲 🌳 🌴 🌵 🍀 🍁 🍄',
  fruit: '🍇 🍈 🍉 🍊 🍋 🍌 🍍 🥭 🍎 🍏 🍐 🍑 🍒 🍓 🫐 🥝 🍅 🥥',
  vegetables: '🥑 🍆 🥔 🥕 🌽 🌶 🫑 🥒 🥦 🧄 🧅',
  food: '🍞 🥐 🥨 🥞 🧀 🍖 🍔 🍟 🍕 🌭 🌮 🥚 🍳 🍿 🍙 🍜 🍤',
  sweets: '🍦 🍩 🍪 🎂 🍰 🧁 🍫 🍬 🍭 🍯',
  drinks: '☕ 🥛 🍷 🍺 🍹 🧋',
  vehicles: '🚗 🚕 🚌 🚑 🚒 🚚 🚜 🏎 🚂 🚲 ⛵ 🚢 ✈ 🚁 🚀 🛸',
  sky: '☀ 🌞 🌙 ⭐ 🪐 🌈 ☁ ⛅ 🌧 ⚡ ☂ ❄ ⛄ 🔥 💧',
  places: '🏠 🏰 ⛺ 🌋',
  sport: '⚽ 🏀 🏈 ⚾ 🎾 🏐 🎱 🏆',
  objects: '🎈 🎁 🎃 🎄 👑 🎩 👕 💎 🔔 🎵 🎸 🎺 🥁 💻 📷 💡 📕 📗 📘 ✂ 🔑',
};
