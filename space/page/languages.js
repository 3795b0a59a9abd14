/** Everything that the page says, in five languages. Emotions that are not listed keep the model's own name. */

/** @typedef {typeof english} Texts */

const english = {
  language: "English",
  title: "Emotion in a voice",
  intro:
    "This page compares how a voice sounds (pitch, loudness, tempo, timbre) with examples of emotions, most of them acted.",
  limits: "It cannot tell what a person feels, means or intends; it is often wrong, and no decision about anybody may rest on it.",
  law: "In the European Union emotion recognition at work and in education is prohibited except for medical or safety reasons (Regulation (EU) 2024/1689, AI Act, Article 5(1)(f)), and anyone it is used on must be told (Article 50(3)).",
  private: "Nothing leaves this device: recordings are neither sent nor stored.",
  languageName: "Language",
  listen: "Listen",
  record: "Record",
  stop: "Stop",
  files: "Choose files",
  folder: "Choose a folder",
  drop: "or drop sound files here",
  samples: "Sample clips",
  licence: "Licence of the sample clips",
  loading: "Loading the model …",
  ready: "Ready.",
  recording: "Recording …",
  working: "Listening to {name} …",
  noModel: "The model cannot be loaded: {reason}",
  noMicrophone: "The microphone cannot be used: {reason}",
  unreadable: "{name} cannot be read: this browser does not decode it.",
  tooShort: "{name} is shorter than 0.1 s.",
  tooSilent: "{name} is silent and says nothing of a voice.",
  result: "Result",
  whole: "Whole clip",
  wave: "Waveform of {name}; what is drawn darker counts more, most at {seconds} s",
  timeline: "Timeline",
  scores: "Scores of the whole clip",
  from: "From",
  to: "To",
  emotion: "Emotion",
  score: "Score",
  usually: "Usually sounds",
  strongest: "Strongest moment",
  seconds: "{n} s",
  silence: "silence",
  noise: "noise, no voice",
  silenceLong: "Silence: nothing is to be heard.",
  noiseLong: "Noise: no voice is to be heard, so the scores say nothing.",
  voice: "Your voice",
  voiceHelp: "Record or choose a few clips of one person in different moods; everything is then relative to that person.",
  enrolRecord: "Record a clip of the voice",
  enrolFiles: "Choose clips of the voice",
  forget: "Forget this voice",
  noVoice: "No voice is enrolled.",
  enrolled: "Enrolled: {n} clips.",
  clips: "Clips",
  file: "File",
  play: "Play",
  pause: "Pause",
  download: "Download predictions.csv",
  clear: "Remove all clips",
  usual: "than is usual for voices like this",
  usualVoice: "than is usual for this voice",
  asUsual: "About as usual.",
  much: "much",
  cues: [
    ["lower", "higher"],
    ["flatter", "livelier"],
    ["softer", "louder"],
    ["duller", "sharper"],
    ["slower", "faster"],
  ],
  emotions: /** @type {Record<string, string>} */ ({
    anger: "anger", happiness: "happiness", fear: "fear", sadness: "sadness", disgust: "disgust", surprise: "surprise",
    neutral: "neutral",
  }),
  model: "Model",
};

/** @type {Texts} */
const german = {
  language: "Deutsch",
  title: "Emotion in einer Stimme",
  intro:
    "Diese Seite vergleicht, wie eine Stimme klingt (Tonhöhe, Lautstärke, Tempo, Klangfarbe), mit meist gespielten Beispielen für Emotionen.",
  limits: "Sie kann nicht sagen, was ein Mensch fühlt, meint oder vorhat; sie irrt sich oft, und keine Entscheidung über jemanden darf auf ihr beruhen.",
  law: "In der Europäischen Union ist Emotionserkennung am Arbeitsplatz und in der Bildung verboten, außer aus medizinischen Gründen oder zur Sicherheit (Verordnung (EU) 2024/1689, KI-Verordnung, Artikel 5 Absatz 1 Buchstabe f), und wer ihr ausgesetzt ist, muss es erfahren (Artikel 50 Absatz 3).",
  private: "Nichts verlässt dieses Gerät: Aufnahmen werden weder gesendet noch gespeichert.",
  languageName: "Sprache",
  listen: "Zuhören",
  record: "Aufnehmen",
  stop: "Anhalten",
  files: "Dateien wählen",
  folder: "Ordner wählen",
  drop: "oder Tondateien hier ablegen",
  samples: "Beispiele",
  licence: "Lizenz der Beispiele",
  loading: "Das Modell wird geladen …",
  ready: "Bereit.",
  recording: "Aufnahme läuft …",
  working: "{name} wird angehört …",
  noModel: "Das Modell kann nicht geladen werden: {reason}",
  noMicrophone: "Das Mikrofon kann nicht benutzt werden: {reason}",
  unreadable: "{name} kann nicht gelesen werden: Dieser Browser entschlüsselt es nicht.",
  tooShort: "{name} ist kürzer als 0,1 s.",
  tooSilent: "{name} ist still und sagt nichts über eine Stimme.",
  result: "Ergebnis",
  whole: "Ganze Aufnahme",
  wave: "Wellenform von {name}; dunkler Gezeichnetes zählt mehr, am meisten bei {seconds} s",
  timeline: "Verlauf",
  scores: "Werte der ganzen Aufnahme",
  from: "Von",
  to: "Bis",
  emotion: "Emotion",
  score: "Wert",
  usually: "Klingt meist",
  strongest: "Stärkster Moment",
  seconds: "{n} s",
  silence: "Stille",
  noise: "Geräusch, keine Stimme",
  silenceLong: "Stille: Es ist nichts zu hören.",
  noiseLong: "Geräusch: Es ist keine Stimme zu hören, die Werte sagen also nichts.",
  voice: "Ihre Stimme",
  voiceHelp: "Nehmen Sie einige Aufnahmen einer Person in verschiedenen Stimmungen auf, oder wählen Sie welche; alles gilt dann im Vergleich zu dieser Person.",
  enrolRecord: "Die Stimme aufnehmen",
  enrolFiles: "Aufnahmen der Stimme wählen",
  forget: "Diese Stimme vergessen",
  noVoice: "Keine Stimme ist angelernt.",
  enrolled: "Angelernt: {n} Aufnahmen.",
  clips: "Aufnahmen",
  file: "Datei",
  play: "Abspielen",
  pause: "Pause",
  download: "predictions.csv herunterladen",
  clear: "Alle Aufnahmen entfernen",
  usual: "als bei ähnlichen Stimmen üblich",
  usualVoice: "als bei dieser Stimme üblich",
  asUsual: "Etwa wie üblich.",
  much: "viel",
  cues: [
    ["tiefer", "höher"],
    ["eintöniger", "lebhafter"],
    ["leiser", "lauter"],
    ["dumpfer", "schärfer"],
    ["langsamer", "schneller"],
  ],
  emotions: {
    anger: "Ärger", happiness: "Freude", fear: "Angst", sadness: "Trauer", disgust: "Ekel", surprise: "Überraschung",
    neutral: "neutral",
  },
  model: "Modell",
};

/** @type {Texts} */
const polish = {
  language: "Polski",
  title: "Emocje w głosie",
  intro:
    "Ta strona porównuje brzmienie głosu (wysokość, głośność, tempo, barwę) z przykładami emocji, przeważnie odegranymi.",
  limits: "Nie wie, co człowiek czuje, myśli ani zamierza; często się myli i nie wolno na niej opierać żadnej decyzji o kimkolwiek.",
  law: "W Unii Europejskiej rozpoznawanie emocji w pracy i w edukacji jest zakazane, z wyjątkiem względów medycznych lub bezpieczeństwa (rozporządzenie (UE) 2024/1689, akt w sprawie AI, art. 5 ust. 1 lit. f), a osoby, wobec których się je stosuje, trzeba o tym poinformować (art. 50 ust. 3).",
  private: "Nic nie opuszcza tego urządzenia: nagrania nie są wysyłane ani przechowywane.",
  languageName: "Język",
  listen: "Słuchanie",
  record: "Nagraj",
  stop: "Zatrzymaj",
  files: "Wybierz pliki",
  folder: "Wybierz folder",
  drop: "albo upuść tu pliki dźwiękowe",
  samples: "Przykładowe nagrania",
  licence: "Licencja przykładowych nagrań",
  loading: "Wczytywanie modelu …",
  ready: "Gotowe.",
  recording: "Nagrywanie …",
  working: "Słucham: {name} …",
  noModel: "Nie można wczytać modelu: {reason}",
  noMicrophone: "Nie można użyć mikrofonu: {reason}",
  unreadable: "Nie można odczytać {name}: ta przeglądarka go nie dekoduje.",
  tooShort: "{name} trwa krócej niż 0,1 s.",
  tooSilent: "{name} jest ciche i nic nie mówi o głosie.",
  result: "Wynik",
  whole: "Całe nagranie",
  wave: "Przebieg {name}; co ciemniejsze, liczy się bardziej, najbardziej w {seconds} s",
  timeline: "Oś czasu",
  scores: "Wyniki całego nagrania",
  from: "Od",
  to: "Do",
  emotion: "Emocja",
  score: "Wynik",
  usually: "Brzmi zwykle",
  strongest: "Najsilniejszy moment",
  seconds: "{n} s",
  silence: "cisza",
  noise: "szum, brak głosu",
  silenceLong: "Cisza: nic nie słychać.",
  noiseLong: "Szum: nie słychać głosu, więc wyniki nic nie znaczą.",
  voice: "Twój głos",
  voiceHelp: "Nagraj lub wybierz kilka nagrań jednej osoby w różnych nastrojach; wszystko będzie wtedy względem tej osoby.",
  enrolRecord: "Nagraj głos",
  enrolFiles: "Wybierz nagrania głosu",
  forget: "Zapomnij ten głos",
  noVoice: "Nie zapamiętano żadnego głosu.",
  enrolled: "Zapamiętano nagrań: {n}.",
  clips: "Nagrania",
  file: "Plik",
  play: "Odtwórz",
  pause: "Wstrzymaj",
  download: "Pobierz predictions.csv",
  clear: "Usuń wszystkie nagrania",
  usual: "niż zwykle u podobnych głosów",
  usualVoice: "niż zwykle u tego głosu",
  asUsual: "Mniej więcej jak zwykle.",
  much: "dużo",
  cues: [
    ["niżej", "wyżej"],
    ["monotonniej", "żywiej"],
    ["ciszej", "głośniej"],
    ["bardziej matowo", "ostrzej"],
    ["wolniej", "szybciej"],
  ],
  emotions: {
    anger: "złość", happiness: "radość", fear: "strach", sadness: "smutek", disgust: "wstręt",
    surprise: "zaskoczenie", neutral: "neutralnie",
  },
  model: "Model",
};

/** @type {Texts} */
const italian = {
  language: "Italiano",
  title: "Emozione in una voce",
  intro:
    "Questa pagina confronta il suono di una voce (altezza, volume, velocità, timbro) con esempi di emozioni, per lo più recitati.",
  limits: "Non può dire che cosa una persona prova, pensa o intende; sbaglia spesso, e nessuna decisione su qualcuno può basarsi su di essa.",
  law: "Nell'Unione europea il riconoscimento delle emozioni sul lavoro e nell'istruzione è vietato salvo motivi medici o di sicurezza (regolamento (UE) 2024/1689 sull'IA, articolo 5, paragrafo 1, lettera f), e chi vi è esposto deve esserne informato (articolo 50, paragrafo 3).",
  private: "Nulla lascia questo dispositivo: le registrazioni non sono né inviate né conservate.",
  languageName: "Lingua",
  listen: "Ascolto",
  record: "Registra",
  stop: "Ferma",
  files: "Scegli file",
  folder: "Scegli una cartella",
  drop: "o trascina qui file audio",
  samples: "Esempi",
  licence: "Licenza degli esempi",
  loading: "Caricamento del modello …",
  ready: "Pronto.",
  recording: "Registrazione …",
  working: "Ascolto di {name} …",
  noModel: "Il modello non può essere caricato: {reason}",
  noMicrophone: "Il microfono non può essere usato: {reason}",
  unreadable: "{name} non può essere letto: questo browser non lo decodifica.",
  tooShort: "{name} dura meno di 0,1 s.",
  tooSilent: "{name} è silenzioso e non dice nulla di una voce.",
  result: "Risultato",
  whole: "Intera registrazione",
  wave: "Forma d'onda di {name}; ciò che è più scuro conta di più, soprattutto a {seconds} s",
  timeline: "Andamento",
  scores: "Punteggi dell'intera registrazione",
  from: "Da",
  to: "A",
  emotion: "Emozione",
  score: "Punteggio",
  usually: "Suona di solito",
  strongest: "Momento più forte",
  seconds: "{n} s",
  silence: "silenzio",
  noise: "rumore, nessuna voce",
  silenceLong: "Silenzio: non si sente nulla.",
  noiseLong: "Rumore: non si sente alcuna voce, quindi i punteggi non dicono nulla.",
  voice: "La tua voce",
  voiceHelp: "Registra o scegli alcune registrazioni di una persona in umori diversi; tutto sarà relativo a quella persona.",
  enrolRecord: "Registra la voce",
  enrolFiles: "Scegli registrazioni della voce",
  forget: "Dimentica questa voce",
  noVoice: "Nessuna voce è memorizzata.",
  enrolled: "Registrazioni memorizzate: {n}.",
  clips: "Registrazioni",
  file: "File",
  play: "Riproduci",
  pause: "Pausa",
  download: "Scarica predictions.csv",
  clear: "Rimuovi tutte le registrazioni",
  usual: "del solito per voci simili",
  usualVoice: "del solito per questa voce",
  asUsual: "All'incirca come al solito.",
  much: "molto",
  cues: [
    ["più grave", "più acuta"],
    ["più piatta", "più vivace"],
    ["più piano", "più forte"],
    ["più sorda", "più tagliente"],
    ["più lenta", "più veloce"],
  ],
  emotions: {
    anger: "rabbia", happiness: "gioia", fear: "paura", sadness: "tristezza", disgust: "disgusto", surprise: "sorpresa",
    neutral: "neutro",
  },
  model: "Modello",
};

/** @type {Texts} */
const mandarin = {
  language: "中文",
  title: "声音中的情绪",
  intro: "本页把声音的特点（音高、响度、语速、音色）与情绪的示例作比较，这些示例大多是表演出来的。",
  limits: "它无法知道一个人的感受、想法或意图；它经常出错，任何关于他人的决定都不得以它为依据。",
  law: "在欧盟，除医疗或安全原因外，禁止在工作场所和教育机构使用情绪识别（《人工智能法》，欧盟第 2024/1689 号条例，第 5 条第 1 款 f 项），并且必须告知被识别的人（第 50 条第 3 款）。",
  private: "任何内容都不会离开此设备：录音既不发送也不保存。",
  languageName: "语言",
  listen: "聆听",
  record: "录音",
  stop: "停止",
  files: "选择文件",
  folder: "选择文件夹",
  drop: "或将声音文件拖放到这里",
  samples: "示例录音",
  licence: "示例录音的许可",
  loading: "正在加载模型……",
  ready: "已就绪。",
  recording: "正在录音……",
  working: "正在聆听 {name}……",
  noModel: "无法加载模型：{reason}",
  noMicrophone: "无法使用麦克风：{reason}",
  unreadable: "无法读取 {name}：此浏览器不能解码。",
  tooShort: "{name} 短于 0.1 秒。",
  tooSilent: "{name} 没有声音，无法反映嗓音。",
  result: "结果",
  whole: "整段录音",
  wave: "{name} 的波形；颜色越深越重要，最重要的在 {seconds} 秒",
  timeline: "时间线",
  scores: "整段录音的得分",
  from: "开始",
  to: "结束",
  emotion: "情绪",
  score: "得分",
  usually: "通常听起来",
  strongest: "最强时刻",
  seconds: "{n} 秒",
  silence: "静音",
  noise: "噪声，没有人声",
  silenceLong: "静音：听不到任何声音。",
  noiseLong: "噪声：听不到人声，因此得分没有意义。",
  voice: "您的声音",
  voiceHelp: "录制或选择同一个人在不同心情下的几段录音；之后一切都与此人平时的声音相比。",
  enrolRecord: "录制这个声音",
  enrolFiles: "选择这个声音的录音",
  forget: "忘记这个声音",
  noVoice: "尚未登记声音。",
  enrolled: "已登记 {n} 段录音。",
  clips: "录音列表",
  file: "文件",
  play: "播放",
  pause: "暂停",
  download: "下载 predictions.csv",
  clear: "移除所有录音",
  usual: "（与类似的声音相比）",
  usualVoice: "（与此人平时相比）",
  asUsual: "与平时差不多。",
  much: "明显",
  cues: [
    ["更低", "更高"],
    ["更平", "更生动"],
    ["更轻", "更响"],
    ["更沉闷", "更尖锐"],
    ["更慢", "更快"],
  ],
  emotions: {
    anger: "愤怒", happiness: "高兴", fear: "恐惧", sadness: "悲伤", disgust: "厌恶", surprise: "惊讶", neutral: "中性",
  },
  model: "模型",
};

/** @type {Record<string, Texts>} */
export const LANGUAGES = { en: english, de: german, pl: polish, it: italian, zh: mandarin };

/**
 * The first of the visitor's languages that the page speaks.
 * @param {readonly string[]} wanted
 */
export function chosenLanguage(wanted) {
  return wanted.map((tag) => tag.split("-")[0].toLowerCase()).find((tag) => tag in LANGUAGES) ?? "en";
}

/**
 * A text with its blanks filled in.
 * @param {string} text
 * @param {Record<string, string | number>} values
 */
export function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

const SOME = 0.5; // standard deviations from which a cue is worth a word
const MUCH = 1.5;

/**
 * What stands out of the cues, strongest first: "much louder, higher".
 * @param {number[]} cues in the order of the prior's: level and range of pitch, loudness, timbre, tempo
 * @param {Texts} texts
 */
export function standingOut(cues, texts) {
  return cues
    .map((value, k) => ({ size: Math.abs(value), word: texts.cues[k][value > 0 ? 1 : 0] }))
    .filter(({ size }) => size >= SOME)
    .sort((a, b) => b.size - a.size)
    .map(({ size, word }) => (size >= MUCH ? `${texts.much} ${word}` : word))
    .join(", ");
}

/**
 * The cues of a clip in a sentence: "louder, much higher than is usual for this voice".
 * @param {number[]} cues
 * @param {Texts} texts
 * @param {boolean} ownVoice whether the voice is enrolled
 */
export function cuesInWords(cues, texts, ownVoice) {
  const words = standingOut(cues, texts);
  return words ? `${words} ${ownVoice ? texts.usualVoice : texts.usual}` : texts.asUsual;
}
