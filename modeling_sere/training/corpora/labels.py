"""Emotion labels: spellings that mean the same, label maps, and the names of emotions that a user lists."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from modeling_sere.training.corpora.names import listed, normal_name, shown
from modeling_sere.training.corpora.strict_json import parse_json
from modeling_sere.training.errors import RunError

# Spellings that can mean one emotion only, in whichever of these languages they stand: German, French, Italian,
# Spanish, Portuguese, Dutch, Swedish, Danish, Norwegian, Polish, Czech, Russian, Turkish, Greek, Persian, Urdu, Arabic,
# Hindi, Chinese, Japanese, Korean. A word that means something else in another of them (disgusto, vrede) is left out.
# Every use is reported (`Corpus.relabelled`), and a label map overrides them.
_SPELLINGS = {
    "anger": """
        angry ang
        Wut Ärger Zorn wütend colère rabbia ira enojo enfado raiva woede boos kwaad ilska złość gniew hněv zlost
        гнев злость öfke kızgın kızgınlık hiddet θυμός خشم عصبانیت غصہ غضب गुस्सा क्रोध 愤怒 憤怒 生气 生氣 怒り 분노
    """,
    "happiness": """
        happy joy joyful hap
        Freude fröhlich glücklich joie gioia felicità alegría felicidad feliz alegria felicidade blij blijdschap vreugde
        glädje glæde glede glad radość szczęście radost štěstí радость счастье mutlu mutluluk sevinç χαρά شادی خوشحالی
        خوشی فرح سعادة खुशी 高兴 高興 快乐 快樂 开心 開心 喜悦 喜悅 喜び 幸せ 기쁨 행복
    """,
    "sadness": """
        sad
        Trauer traurig Traurigkeit tristesse triste tristezza tristeza verdriet verdrietig smutek грусть печаль üzgün
        üzüntü λύπη θλίψη غم اداسی حزن दुख उदासी 悲伤 悲傷 伤心 傷心 难过 難過 悲しみ 슬픔
    """,
    "fear": """
        fearful fea afraid
        Angst ängstlich Furcht peur paura miedo medo rädsla frygt frykt strach lęk страх korku φόβος ترس ڈر خوف डर भय
        恐惧 恐懼 害怕 恐れ 恐怖 공포 두려움
    """,
    "disgust": """
        disgusted dis
        Ekel dégoût asco nojo walging avsky afsky wstręt obrzydzenie znechucení отвращение iğrenme tiksinti αηδία انزجار
        اشمئزاز घृणा 厌恶 厭惡 嫌悪 혐오
    """,
    "surprise": """
        surprised sur
        Überraschung überrascht sorpresa surpresa verrassing överraskning overraskelse zaskoczenie zdziwienie překvapení
        удивление şaşkınlık έκπληξη تعجب مفاجأة دهشة आश्चर्य 惊讶 驚訝 惊奇 驚奇 吃惊 吃驚 驚き 놀람 놀라움
    """,
    "neutral": """
        neutrality neu
        neutre neutro neutrale neutraal neutralny neutrální нейтральный нейтрально нейтральность nötr ουδέτερο خنثی
        محايد तटस्थ 中性 中立 중립
    """,
    "boredom": "bored Langeweile ennui noia aburrimiento tédio verveling nuda скука 无聊 無聊 退屈 지루함",
    "contempt": """
        contemptuous
        Verachtung mépris disprezzo desprecio desprezo minachting pogarda презрение 轻蔑 輕蔑 軽蔑 경멸
    """,
    "calm": "calmness calme calma spokój спокойствие 平静 平靜",
}
EMOTIONS = frozenset(_SPELLINGS)
LABEL_ALIASES = {normal_name(word): emotion for emotion, words in _SPELLINGS.items() for word in words.split()}
UNKNOWN = "?"  # stands for the emotion in a label map that the user has to fill in


class Spellings:
    """The meaning of a corpus' labels: a label map, then `LABEL_ALIASES`, else themselves in normal form."""

    def __init__(self, label_map: Mapping[str, str] | None = None):
        self.label_map = _normalised((label_map or {}).items())

    def emotion(self, label: str) -> str:
        """Return the emotion that a label stands for."""
        name = normal_name(label)
        return self.label_map.get(name) or LABEL_ALIASES.get(name, name)

    def knows(self, label: str) -> bool:
        """Tell whether a label is that of an emotion, and not any word."""
        return is_known(label) or normal_name(label) in self.label_map


def is_known(label: str) -> bool:
    """Tell whether a label is an emotion of `EMOTIONS` or another spelling of one."""
    return (name := normal_name(label)) in EMOTIONS or name in LABEL_ALIASES


def parse_label_map(text: str) -> dict[str, str]:
    """Read `Wut=anger,Freude=happiness`, one JSON object, or the path of a JSON file with one, as a dictionary.

    Keys and values are brought into normal form, as labels are; a value is taken literally, without `LABEL_ALIASES`.

    Raises:
        RunError: the text or the file has another form, or gives one spelling two emotions.
    """
    if text.lstrip().startswith("{"):
        return _normalised(_json_pairs(text, "label map"))
    if text.strip().lower().endswith(".json") and "=" not in text:
        return _normalised(_file_pairs(Path(text.strip()).expanduser()))
    pairs = [part.split("=") for part in text.split(",") if part.strip()]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise RunError(
            f"label map: {shown('='.join(bad[0]).strip())!r} is not of the form spelling=emotion; spellings with commas"
            ' or equals signs need a JSON object like {"a, b": "anger"}'
        )
    return _normalised(pairs)


def parse_emotions(text: str, label_map: Mapping[str, str] | None = None) -> list[str]:
    """Read `anger,sadness,neutral` as a list of emotions, each once.

    Raises:
        RunError: fewer than two emotions.
    """
    spellings = Spellings(label_map)
    emotions = list(dict.fromkeys(spellings.emotion(name) for name in text.split(",") if normal_name(name)))
    if len(emotions) < 2:
        raise RunError(f"at least two emotions are needed, separated by commas, and not only {listed(emotions)}")
    return emotions


def label_map_flag(labels: Iterable[str]) -> str:
    """Return a `--label_map` for a shell in which the emotions of labels are to be filled in.

    A label in whose words there is just one emotion ("neutral state") has it filled in already.
    """
    suggested = {label: _suggestion(label) for label in labels}
    text = ",".join(f"{label}={emotion}" for label, emotion in suggested.items())
    if any(re.search(r'[,="{}]', label) for label in suggested) or not text.isprintable():
        text = json.dumps(suggested, ensure_ascii=not text.isprintable())
    return f"--label_map {shlex.quote(text)}"


def _suggestion(label: str) -> str:
    words = {Spellings().emotion(word) for word in re.split(r"[\W_]+", label) if is_known(word)}
    return words.pop() if len(words) == 1 else UNKNOWN


def _normalised(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    result = {}
    for spelling, emotion in pairs:
        spelling, emotion = normal_name(spelling), normal_name(emotion)
        if not spelling or not emotion:
            raise RunError(f"label map: {shown(f'{spelling}={emotion}')!r} needs a spelling and an emotion")
        if emotion == UNKNOWN:
            raise RunError(f"label map: write an emotion in place of the ? of {shown(spelling)!r}, or leave it out")
        if result.setdefault(spelling, emotion) != emotion:
            both = f"both as {shown(result[spelling])} and as {shown(emotion)}"
            raise RunError(f"label map: {shown(spelling)!r} is given {both}")
    return result


def _file_pairs(path: Path) -> list[tuple[str, str]]:
    title = f"label map {shown(str(path))}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(f"{title} is not in UTF-8: save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise RunError(f"{title} cannot be read: {getattr(error, 'strerror', error)}") from error
    return _json_pairs(text, title)


def _json_pairs(text: str, title: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_json(text)
    except ValueError as error:
        raise RunError(f"{title} is not JSON: {error}") from error
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise RunError(f'{title} must be one JSON object of texts, like {{"Wut": "anger"}}')
    return list(pairs.items())
