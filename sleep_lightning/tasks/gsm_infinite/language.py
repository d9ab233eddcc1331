"""Problems in English: one sentence a fact, one question."""

from sleep_lightning.tasks.gsm_infinite.equations import Equation, Level, Quantity
from sleep_lightning.tasks.gsm_infinite.settings import SETTINGS, Setting


class Language:
    """Sentences of one setting."""

    def __init__(self, setting: str) -> None:
        self.setting: Setting = SETTINGS[setting]
        self._phrases: dict[Quantity, str] = {}

    def phrase(self, quantity: Quantity) -> str:
        """The quantity as part of a sentence, without its article, after a space."""
        if quantity not in self._phrases:
            self._phrases[quantity] = self._phrase(quantity)
        return self._phrases[quantity]

    def _phrase(self, quantity: Quantity) -> str:
        s = self.setting
        where = f"{s.preposition} {s.places[quantity.place]}"
        if quantity.level == Level.TOTAL:
            return f" total number of {s.group} {where}"
        if quantity.level == Level.MEMBERS:
            return f" total number of {s.members} {where}"
        kind = s.kinds[quantity.kind]
        if quantity.level == Level.AVERAGE:
            return f" average number of {s.members} per {kind} {where}"
        return f" number of {kind}s {where}"

    def parts(self, fact: Equation) -> list[str]:
        """The sentence of a fact in parts, few of which are ever new, so that their tokens can be kept.

        All but punctuation begin with a space: tokenizers never join what comes before with what follows.
        """
        constant, operands = fact.constant, [self.phrase(q) for q in fact.operands]
        parts = [" The", self.phrase(fact.quantity), " is"]
        if constant is not None:
            parts.append(f" {constant}")
        if not operands:
            return [*parts, "."] if constant is not None else [*parts, " unknown but above 0", "."]
        if constant is not None:
            parts.append(" times" if fact.times else " more than")
        elif len(operands) == 1:
            parts.append(" the same as")
        if len(operands) > 1:
            parts.append(" the difference between" if fact.difference else " the sum of")
        for i, operand in enumerate(operands):
            if i:
                parts.append(" and" if i == len(operands) - 1 else ",")
            parts += [" the", operand]
        return [*parts, "."]

    def sentence(self, fact: Equation) -> str:
        """A fact, with its full stop."""
        return "".join(self.parts(fact)).strip()

    def question(self, query: Quantity) -> str:
        """What a problem asks."""
        if query.level != Level.NUMBER:
            return f"What is the{self.phrase(query)}?"
        s = self.setting
        return f"How many {s.kinds[query.kind]}s are there {s.preposition} {s.places[query.place]}?"


def words(settings: list[str]) -> str:
    """A text that holds every word the settings can produce, but for numbers."""
    text = ["Question: Context: Answer: What is the How many are there?"]
    for name in settings:
        s, language = SETTINGS[name], Language(name)
        text += [f"{s.group} {s.members} {s.preposition}", *s.places, *s.kinds, *(f"{kind}s" for kind in s.kinds)]
        a, b, c = (Quantity(Level(i), 0, 0) for i in (0, 1, 2))
        text += [language.sentence(Equation(a)), language.sentence(Equation(a, (b, c, a), 1, times=True))]
        text += [language.sentence(Equation(a, (b, c), 1, difference=True)), language.sentence(Equation(a, (b,)))]
    return " ".join(text)
