"""Text about the World of tiny_world.py, in two registers: encyclopaedic articles and web pages.

A Teller turns facts into sentences. Sentences are templates: "[a|b|c]" is a choice (nests, may be empty); "{slot}" is
looked up in the document's own names, in its subject's facts, in the word lists WORDS, then as the name of some entity
of that kind; "{3-40}" is a number in that range. Each document has people of its own, who recur in it and nowhere else.

defines: Teller, wikitext, wikitext_join, web_page, question, sentence_case, full_name
Usage: part of make_tiny.py. Packages: none; the same random stream gives the same bytes.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import re
from functools import lru_cache

from tiny_world import KINDS, STORIES, WORDS, pick


# ------------------------------------------------------------------------------------------------------------ templates

@lru_cache(maxsize=None)
def parse(template):
    """A template as nested tuples: str, ("slot", name) and ("pick", (alternative, ...)), each alternative such one."""
    stack = [[[]]]                                    # one list of alternatives a level; the last one is being filled
    for token in re.findall(r"\[|\]|\||\{[^}]*\}|[^\[\]|{}]+", template):
        if token == "[":
            stack.append([[]])
        elif token == "]":
            alternatives = tuple(tuple(a) for a in stack.pop())
            stack[-1][-1].append(("pick", alternatives))
        elif token == "|":
            stack[-1].append([])
        else:
            stack[-1][-1].append(("slot", token[1:-1]) if token[0] == "{" else token)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError(f"unbalanced brackets in template: {template}")
    return tuple(stack[0][0])


def sentence_case(text):
    """Text with a capital at its start, and "an" before vowels."""
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOUéèöå])", r"\1n ", text)
    return text[:1].upper() + text[1:]


def full_name(entity):
    """The name as it stands in a sentence."""
    return ("the " if entity["kind"] in ("creature", "plant", "river") else "") + entity["name"]


def question(entity, fact):
    """The question whose answer is the value of the fact."""
    return KINDS[entity["kind"]]["facts"][fact][1].format(name=entity["name"])


class Teller:
    """One document's voice: its random stream, its own recurring names, its running year and its present subject."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.new_document()

    def new_document(self):
        """Draws new people and a new year; forgets the last document's."""
        friend, rival, pal = (self.person() for _ in range(3))
        self.names = {"friend": friend, "rival": rival, "pal": pal.split()[0]}
        self.now = self.rng.randint(180, 700)
        self.entity, self.mentioned = {}, False
        self.deck = []

    def person(self):
        """A full name, most often one that no other document has."""
        return self.rng.choice(self.world.first_names) + " " + self.rng.choice(self.world.surnames)

    def draw(self, kind):
        """An entity of a kind, long-tailed."""
        return pick(self.rng, self.world.entities[kind])

    def about(self, entity):
        """Makes an entity the subject of the next sentences, to be named in full first."""
        self.entity, self.mentioned = entity, False

    def subject(self, nominative):
        """The subject's name, or a pronoun once it has been named in this paragraph."""
        entity, kind = self.entity, self.entity["kind"]
        if self.mentioned and self.rng.random() < 0.55:
            if kind == "person":
                return ("he", "she")[entity["she"]] if nominative else ("him", "her")[entity["she"]]
            return self.rng.choice(["it", "the animal" if kind == "creature" else "the " + kind])
        self.mentioned = True
        if kind == "person" and self.rng.random() < 0.6:
            return entity["name"].split()[-1]
        return full_name(entity)

    def look(self, slot):
        """The text of a slot."""
        if slot in ("subj", "subj_"):
            return self.subject(slot == "subj")
        if slot == "its":
            if not self.mentioned:
                return self.subject(True) + "'s"
            return ("his", "her")[self.entity["she"]] if self.entity["kind"] == "person" else "its"
        if slot == "year":
            self.now += int(self.rng.expovariate(0.12)) + 1
            return str(self.now)
        for names in (self.names, self.entity):
            if slot in names:
                return names[slot]
        if slot in WORDS:
            return pick(self.rng, WORDS[slot])
        if slot in KINDS:
            return self.draw(slot)["name"]
        if slot == "region_word":
            return self.rng.choice(self.world.regions)
        low, high = map(int, slot.split("-"))
        return str(self.rng.randint(low, high))

    def render(self, node, slots):
        """The text of a parsed template."""
        out = []
        for part in node:
            if type(part) is str:
                out.append(part)
            elif part[0] == "slot":
                out.append(slots[part[1]] if part[1] in slots else self.look(part[1]))
            else:
                out.append(self.render(part[1][int(self.rng.random() * len(part[1]))], slots))
        return "".join(out)

    def say(self, template, **slots):
        """Text from a template, with a capital at its start; slots override everything else."""
        return sentence_case(self.render(parse(template), slots))

    def fact(self, fact):
        """A sentence that tells one fact of the subject."""
        return self.say(KINDS[self.entity["kind"]]["facts"][fact][3], v=self.entity[fact])

    def aside(self):
        """A sentence about some other entity."""
        before = self.entity, self.mentioned
        self.about(self.draw(self.rng.choice(list(KINDS))))
        text = self.fact(self.rng.choice(list(KINDS[self.entity["kind"]]["facts"])))
        self.entity, self.mentioned = before
        return text

    def paragraph(self, facts, pool, n):
        """The given facts of the subject, then n sentences: from the pool, used up before it repeats, and asides."""
        self.mentioned = False
        sentences = [self.fact(fact) for fact in facts]
        for _ in range(n):
            if self.rng.random() < 0.12:
                sentences.append(self.aside())
                continue
            if not self.deck:
                self.deck = self.rng.sample(pool, len(pool))
            sentences.append(self.say(self.deck.pop()))
        return " ".join(sentences)


# ------------------------------------------------------------------------------------------------------------- articles

def article(teller):
    """An encyclopaedic article: a list of (level, text), level 0 for a paragraph, 1 for the title, 2 for a section."""
    rng = teller.rng
    teller.new_document()
    kind = rng.choices(list(KINDS), [4, 2, 5, 5, 1.5, 1.5, 1])[0]
    teller.about(teller.draw(kind))
    info, pool = KINDS[kind], STORIES[kind]
    teller.mentioned = True                           # by the title
    lead = teller.say(rng.choice(info["lead"]))
    rows = [(1, sentence_case(teller.entity["name"])), (0, f"{lead} {teller.paragraph([], pool, rng.randint(1, 3))}")]
    for heading, facts in info["sections"]:
        if rng.random() < 0.15:
            continue
        rows.append((2, heading))
        rows.append((0, teller.paragraph(facts, pool, rng.randint(2, 6))))
        while rng.random() < 0.3:
            rows.append((0, teller.paragraph(rng.sample(facts, min(1, len(facts))), pool, rng.randint(2, 6))))
    return rows


def wiki_lines(rows):
    """An article as lines of a WikiText file (without newlines): tokenized punctuation, blank lines around headings."""
    lines = []
    for level, text in rows:
        if level:
            mark = " ".join("=" * level)
            lines += [" ", f" {mark} {text} {mark} ", " "]
            continue
        text = re.sub(r"([,;:.?!)])(?=\s|$|[\")])", r" \1", text)
        text = re.sub(r"(\d)([,.])(?=\d)", r"\1 @\2@ ", text)
        text = re.sub(r"(\w)-(?=\w)", r"\1 @-@ ", text).replace("(", "( ").replace("'s", " 's")
        lines.append(f" {text} ")
    return lines


def wikitext(teller, length):
    """The text of a WikiText file: articles of at least `length` characters together."""
    lines, size = [], 0
    while size < length:
        new = wiki_lines(article(teller))
        lines += new
        size += sum(map(len, new))
    return "".join(line + "\n" for line in [*lines, " "])


def wikitext_join(text):
    """What is tokenized of a WikiText file: rows keep their newline, blank ones are empty; a blank line between."""
    return "\n\n".join(line + "\n" if line.strip() else "" for line in text.split("\n")[:-1])


# ------------------------------------------------------------------------------------------------------------ web pages
# A sort of page: the kinds its parts are about, its title, a part's heading, and what is said beside facts.

WEB = {
    "diary": (["town"], "[Walking|Riding|By cart] [through|across] {region_word} with {pal}[| - part {2-9}]",
              "Day {day}: [|On to |A day in ]{name}", [
        "we [left|set out] at [dawn|{5-9} o'clock], and {pal} was {feeling} [already|again].",
        "it rained until we reached {place}.",
        "{pal} bought a {adj} {thing} for {3-90} pence[| and lost it by evening| and I carried it].",
        "for supper we had {dish}, [which I loved|which {pal} disliked|and then {dish}].",
        "we saw {2-40} {people} [near|by] {place}, all rather {feeling}.",
        "I asked {people} about the {building}, but nobody knew [its age|who built it].",
        "near {place} we [heard|saw|fed] a {creature}[|, the {ordinal} on this trip].",
        "my [feet|boots|knees] [hurt|are wet], so tomorrow we [rest|take the boat].",
        "the room cost {3-40} pence and smelled of {goods}.",
        "don't miss the {building} - it's {adj} but [free|worth the walk]!",
        "{pal} says hello[| to all of you|, and wants to go home]."]),
    "kitchen": (["dish"], "[Recipes|Cooking] from {region_word}: {number} [dishes|ideas] for {month}",
                "{name}[|, the easy way| for {number} people| like my aunt made it]", [
        "- {2-9} [spoons|cups|handfuls] of {ingredient}\n- {number} [large|small|ripe] {ingredient}\n- a [pinch|cup] "
          "of [salt|pepper|cider]\n",
        "wash the {ingredient} and cut [it|them] into {number} pieces.",
        "leave [it|everything] for {10-90} minutes[| under a cloth| in the cellar].",
        "if you can't find {ingredient}, [use|try] {ingredient}.",
        "{pal} [always|never] adds {ingredient}, and I think that's [right|a shame]!",
        "stir {adv} until it turns {colour_word}.",
        "my family has made this [since|every {month}] for {number} years.",
        "I wrote about {dish} last {month}, remember?",
        "serves {number}, or {number} {people}.",
        "keep the rest in a jar; it's good for {number} days."]),
    "garden": (["plant"], "{pal}'s garden notes[| for {month}|, year {2-9}]",
               "{name}: [sowing|care|a short guide|what I learned]", [
        "I [sowed|planted] {3-90} of them by {place} [last|in] {month}.",
        "after {number} weeks of {weather} only {number} were left.",
        "water {adv}, and never in {month}.",
        "the {creature} ate [half|all] of mine - what do you do about it?",
        "don't put it next to the {plant}.",
        "a neighbour, {friend}, [gave me|sold me] [seeds|roots] for {3-40} pence.",
        "mine are {adj} this year and {colour_word} at the edges.",
        "cut it back by {number} inches, or ask {people} to.",
        "thank you for all the letters, {pal}!"]),
    "shop": (["stone", "town"], "{friend} & {pal}, [dealers in|makers of] {goods} and {goods}",
             "No. {100-999}: {adj} {thing} from {name}, {3-90} pence", [
        "made by hand from {goods} and {goods}.",
        "our {thing}s are [stronger|lighter] than they look, and they're {colour_word}.",
        "{number} left in stock - order before {month}!",
        "weight: {2-40} pounds. Length: {2-40} inches.",
        "also sold in {colour_word}, {colour_word} and {colour_word}.",
        "\"{adj} and {adj}, I'm very {feeling},\" writes {rival} from {town}.",
        "we send to {region_word} for {3-40} pence.",
        "not for use in {weather}.",
        "return it within {number} days if you're not {feeling}.",
        "see also: {adj} {thing}, {thing} for {people}."]),
    "forum": (["creature", "plant", "dish", "river"],
              "[Question|Help|A bet] about the {creature} and other things - page {2-99}",
              "{user} wrote on {2-30} {month}:", [
        "I don't think that's right, {pal}.",
        "[thanks|well], that's what {scholar} says too.",
        "who can tell me more[| about the {creature}| before {month}]?",
        "I've seen {number} of them by {place} myself!",
        "please stay polite, everyone.",
        "my {number} [brothers|sisters|neighbours] say the same.",
        "isn't that the {plant} you mean?",
        "you can read about it in {town}, at the {building}.",
        "+1, and it's {adj} too.",
        "you're all {feeling} today, I see."]),
    "news": (["town", "person"], "The {region_word} [Herald|Courier|Lantern], {2-30} {month} {year}",
             "{disaster} [in|near|feared at] {name}", [
        "\"we are {feeling},\" said {friend}, the {office}.",
        "{2-90} {people} [met|waited|danced] by {place}.",
        "the price of {goods} [rose|fell] from {20-90} to {3-19} pence.",
        "{rival} [denied|repeated|withdrew] this on {2-30} {month}.",
        "the new {building} will cost {3-40},{3-9}00 pounds.",
        "{weather} is expected until {month}[|, and {weather} after that].",
        "a {thing} was stolen from {friend}; {rival} found it under {place}.",
        "the {creature} [escaped|returned] {hour_word}, to the joy of {people}.",
        "more [about this|of that] on page {2-12}."]),
    "watch": (["creature"], "[Animals|Field notes] of {region_word}, [collected|sent in] by {friend}",
              "The {name}[|, seen by {pal}|: {number} sightings]", [
        "{pal} and I waited by {place} for {number} hours.",
        "at {5-9}.{10-59} it [appeared|moved|ran] {adv}, followed by {number} young.",
        "we counted {3-90}, against {3-90} [last year|in {month}].",
        "length {2-40} inches, weight {2-9}.{2-9} pounds.",
        "it took no notice of the {creature}.",
        "I [drew|lost] my {thing} in the {weather}.",
        "has anyone seen one in {region_word}? write to {friend}!",
        "{adj} light, {weather}, then {weather}."]),
    "lives": (["person"], "[Great|Forgotten|Curious] lives: {number} [stories|portraits]",
              "{name}[|, {ordinal} part|: a {adj} life]", [
        "I [found|read] this in a {adj} book that {pal} lent me.",
        "imagine [living|working] with {number} {people} and no {thing}!",
        "\"{adj}, {adj} and always {feeling},\" a neighbour said.",
        "nobody in {town} believed it.",
        "that's why we remember {its} name, I think.",
        "{friend} tells it differently.",
        "there's a {building} named after {subj_} in {town}.",
        "[but|and] then came the {disaster}.",
        "in {year} {subj} sold {3-90} {thing}s in {town}.",
        "what would you have done?"]),
}


def web_page(teller, length):
    """A web page (title, parts with headings, paragraphs) of at least `length` characters."""
    rng = teller.rng
    teller.new_document()
    kinds, title, heading, pool = WEB[rng.choice(list(WEB))]
    teller.about(teller.draw(kinds[0]))
    users = [teller.person().replace(" ", rng.choice(["_", ""])) + str(rng.randint(1, 99)) for _ in range(5)]
    parts, size, day = [teller.say(title)], 0, 0
    while size < length:
        day += 1
        teller.about(teller.draw(rng.choice(kinds)))
        facts = rng.sample(list(KINDS[teller.entity["kind"]]["facts"]), rng.randint(1, 3))
        text = teller.say(heading, day=str(day), user=rng.choice(users)) + "\n"
        if rng.random() < 0.15:
            text += question(teller.entity, facts[0])
            text += teller.say(" [I think|Surely|They say] {v}. ", v=teller.entity[facts[0]])
        parts.append(text + teller.paragraph(facts, pool, rng.randint(2, 7)))
        size += len(parts[-1])
    return "\n\n".join(parts) if rng.random() < 0.7 else "\n".join(parts)
