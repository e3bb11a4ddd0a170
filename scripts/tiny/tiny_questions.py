"""Questions about the World of tiny_world.py, in the layouts of PIQA, ARC, HellaSwag, WinoGrande, BoolQ and MMLU.

Each maker returns one record in the layout of the real set's file (MMLU's: a row of its CSV file); `requests` says how
a record is scored, `mmlu_prompt` what the model reads of an exam. The same questions, with their answers, are part of
the training texts: `task_document`, `exam_document`.

defines: MAKERS, PATHS, requests, mmlu_row, mmlu_prompt, task_document, exam_document, TEST_SUBJECTS
Usage: part of make_tiny.py. Packages: none; the same random stream gives the same bytes.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import re

from tiny_texts import full_name, question, sentence_case
from tiny_world import KINDS, STORIES, pick, words

# Activities: label, opening, and steps in order, each starting with a plain verb.
ACTIVITIES = [tuple(part.strip() for part in block.split("/")) for block in " ".join("""
Weaving a basket / is sitting in the yard with a bundle of willow rods / soak the rods in a trough / lay eight
    rods in a cross / weave the thin rods in and out / trim the loose ends with a knife / fix a handle to the rim;
Baking bread / is standing at a table covered with flour / mix the flour with warm water / knead the dough with
    both hands / leave the dough under a cloth / shape the dough into round loaves / slide the loaves into the oven;
Shoeing a horse / is leading a horse to the forge / lift the front hoof onto one knee / pull the old nails from
    the hoof / file the edge of the hoof / press the hot shoe against the hoof / hammer new nails into the shoe;
Sharpening a scythe / is kneeling in the grass beside a scythe / wipe the blade with wet straw / draw the
    whetstone along the edge / turn the blade over / test the edge on a stalk / swing the scythe through the grass;
Making candles / is melting wax in a tall pot / cut the wicks to the same length / dip the wicks into the wax /
    hang the wicks on a rack / dip the candles once more / roll the candles on a smooth board;
Mending a net / is sitting on an upturned boat / spread the net over the oars / search the net for holes / thread
    the wooden needle / knot new twine across the gap / fold the net into the boat;
Pressing cider / is carrying sacks of apples into a barn / wash the apples in a tub / crush the apples in the mill
    / pile the pulp on straw mats / turn the screw of the press / pour the juice into barrels;
Keeping bees / is walking to the hives in a wide hat / light the smoker with dry moss / blow smoke into the hive /
    lift the lid from the hive / take out a full comb / cut the wax from the honey;
Dyeing wool / is standing by a steaming copper kettle / rinse the wool in the stream / boil the roots for an hour
    / sink the wool into the dye / stir the kettle with a pole / hang the coloured wool in the wind;
Painting a boat / is walking around a boat on the beach / scrape the old paint from the planks / fill the cracks
    with tar / stir a pail of paint / brush paint along the keel / paint the name on the bow;
Building a wall / is looking at a heap of field stones / dig a shallow trench / set the largest stones in the
    trench / fit smaller stones between them / check the wall with a string / lay flat stones on the top;
Playing chess / is sitting across from a friend at a small table / place the pieces on the board / push a pawn two
    squares / capture a knight with a bishop / move the king to the corner / shake hands after the game;
Climbing a cliff / is tying a rope around the waist / look for a hold above the ledge / pull up onto the ledge /
    rest against the rock / loop the rope over a spike / wave from the top of the cliff;
Milking a goat / is entering a shed with a pail / tie the goat to a post / wash the udder with warm water / sit
    down on a low stool / squeeze milk into the pail / carry the full pail to the kitchen;
Making paper / is stirring a vat of grey pulp / dip the frame into the vat / shake the water from the frame / turn
    the wet sheet onto felt / press the stack of sheets / peel the dry sheets apart;
Firing pots / is wedging clay on a bench / throw the clay on the wheel / pull the walls of the pot upward / cut
    the pot off with a wire / brush glaze over the dry pot / stack the pots in the kiln;
Washing a dog / is calling a muddy dog into the yard / hold the dog by its collar / pour water over the dog / rub
    soap into the fur / rinse the soap from the fur / rub the dog with a towel;
Cutting hair / is placing a chair in front of a mirror / tie a cloth around the neck / comb the hair straight /
    snip the hair above the ears / brush the hair from the neck / show the back with a second mirror;
Planting a tree / is carrying a young tree across a field / dig a deep hole / spread the roots in the hole /
    shovel earth over the roots / tie the trunk to a stake / water the tree from a can;
Smoking fish / is cleaning fish beside a shed / split the fish along the belly / rub salt into the fish / hang the
    fish on hooks / light a fire of alder chips / close the door of the smoke house;
Binding a book / is arranging printed sheets on a desk / fold the sheets in half / stitch the sheets along the
    fold / glue the spine / cover the boards with leather / press the book under a weight;
Sailing a boat / is stepping into a boat at the pier / untie the rope from the post / raise the sail / steer the
    boat into the wind / lower the sail near the shore / drag the boat up the beach;
Carving a spoon / is sitting on a log with a piece of birch / split the birch with an axe / draw a spoon on the
    wood / hollow the bowl with a bent knife / smooth the handle / rub oil into the spoon;
Making cheese / is warming milk over a slow fire / stir rennet into the milk / wait for the milk to set / cut the
    curd into cubes / strain the curd through a cloth / turn the cheese in the cellar;
Juggling / is standing on a barrel before a crowd / toss one ball from hand to hand / add a second ball / throw
    the third ball high / catch all the balls in a hat / bow to the crowd;
Picking apples / is leaning a ladder against an apple tree / climb up the ladder / twist an apple from its branch
    / put the apples into a shoulder bag / climb down with the full bag / sort the apples in crates;
Setting a table / is unfolding a white cloth / spread the cloth over the table / put a plate before every chair /
    lay the spoons beside the plates / fill the jug with water / call the guests to supper;
Lighting a stove / is kneeling before a cold stove / sweep the ashes into a bucket / stack dry twigs in the stove
    / strike a match / blow on the first flames / add two thick logs
""".split()).split(";")]

# Tools, and what each is for.
TOOLS = [tuple(line.strip() for line in pair.split(":")) for pair in """
mortar: grind seeds; sickle: cut ripe barley; loom: weave cloth; anvil: shape hot iron; sieve: clean flour; bellows:
feed a forge; awl: pierce leather; plumb line: check a wall; trowel: spread mortar; chisel: carve oak; plane: smooth a
board; auger: drill a beam; churn: make butter; ladle: serve soup; whetstone: sharpen a blade; tongs: hold hot coals;
shuttle: pass the weft; spindle: twist yarn; crook: catch a sheep; shears: clip wool; pitchfork: toss hay; flail:
thresh rye; winnow: remove chaff; yoke: pair two oxen; snare: trap a hare; harpoon: catch a pike; anchor: hold a ship;
sextant: find the north; funnel: fill a bottle; corkscrew: open wine; thimble: protect a finger; bodkin: thread a
ribbon; rasp: shape a hoof; mallet: drive a peg; crowbar: lift a slab; pulley: raise a load; wheelbarrow: move gravel;
rake: gather leaves; hoe: weed a bed; dibber: plant bulbs; kiln: fire clay; crucible: melt tin; stencil: repeat a
pattern; abacus: add long sums; hourglass: time an egg; lantern: cross a dark yard; snowshoe: walk on deep snow;
stilts: cross a marsh; bucket: empty a boat; wedge: split a log
""".replace("\n", " ").split(";")]

# Two candidates and a clause that fits only one of them: stem, clauses for the first, clauses for the second.
SCHEMAS = [
    ("{A} lent the {thing} to {B} because", "[had two of them|did not need it that day|was staying at home]",
     "[had lost one|asked for it twice|was leaving on a journey]"),
    ("{A} taught {B} to play the flute, so", "[was thanked for the lessons|was paid for every lesson]",
     "[could soon play at the fair|learned a new tune each week]"),
    ("{A} bought a {thing} from {B}, and", "[counted out the coins|carried it home]",
     "[put the coins in a purse|had one thing less to sell]"),
    ("{A} was taller than {B}, so", "[reached the high shelf|had to bend at the door]",
     "[needed a stool|could not see over the wall]"),
    ("{A} lost the race to {B} because", "[ran too slowly|had a sore foot]", "[ran very fast|had trained all winter]"),
    ("{A} carried {B} over the river because", "[had strong legs|could swim well]", "[could not swim|had hurt a knee]"),
    ("{A} owed {B} {3-90} pence, so", "[sold a {thing} to pay|worked all {month} to pay]",
     "[waited for the money|asked for the money again]"),
    ("{A} hid the {thing} from {B} because", "[wanted to keep it|did not trust anyone]",
     "[used to steal|broke everything]"),
    ("{A} nursed {B} through the winter, as", "[knew about herbs|was a good doctor]",
     "[was ill with fever|had a bad cough]"),
    ("{A} asked {B} the way because", "[was lost|was new in {town}]", "[knew the roads|had lived there for years]"),
    ("{A} cooked {dish} for {B}, and", "[washed the pots afterwards|burned a finger on the pan]",
     "[praised the meal|ate two plates of it]"),
    ("{A} woke {B} at dawn because", "[had been awake for hours|got up first]", "[had overslept|was still asleep]"),
    ("{A} wrote a long letter to {B}, and", "[ran out of ink|paid for the stamp]", "[read it twice|sent an answer]"),
    ("{A} hired {B} to mend the roof because", "[was afraid of heights|had money but no skill]",
     "[was a good roofer|worked for low wages]"),
    ("{A} forgave {B} because", "[had a kind heart|was no longer angry]",
     "[had said sorry|wept about the broken {thing}]"),
    ("{A} followed {B} through the fog because", "[could not find the path|had no lantern]",
     "[knew the path|carried the lantern]"),
    ("the {a} did not fit into the {b} because the", "was too [big|wide|long]", "was too [small|narrow|short]"),
    ("the {a} fell on the {b}, and the", "[slid off|bounced away]", "[was crushed under it|broke under the weight]"),
    ("she sold the {a} and kept the {b} because the", "was [ugly|useless to her]",
     "was [dear to her|a gift from her mother]"),
    ("he put the {a} under the {b}, so the", "[stayed dry|was hidden]", "[stood higher|kept the rain off]"),
]
OBJECTS = words("box, chest, jar, drum, kettle, basket, barrel, sack, ladder, table, saddle, lamp, trunk, crate, "
                "statue, bell")

SUBJECTS = {}                                             # MMLU subject -> kinds of entities that it asks about
for _kind, _info in KINDS.items():
    SUBJECTS.setdefault(_info["subject"], []).append(_kind)
TEST_SUBJECTS = ["field_zoology", "garden_botany", "great_lives", "world_geography"]


# --------------------------------------------------------------------------------------------------- makers of records

def any_fact(teller, kinds):
    """An entity of one of the kinds, and the name of one of its facts."""
    kind = teller.rng.choice(kinds)
    return teller.draw(kind), teller.rng.choice(list(KINDS[kind]["facts"]))


def other_values(teller, entity, fact, n):
    """n wrong values of a fact."""
    return teller.rng.sample([v for v in teller.world.values[entity["kind"], fact] if v != entity[fact]], n)


def shuffled(rng, right, wrong):
    """All choices in random order, and the index of the right one."""
    choices = [right] + wrong
    rng.shuffle(choices)
    return choices, choices.index(right)


def arc_record(stem, choices, gold):
    options = [{"text": text, "label": label} for text, label in zip(choices, "ABCDE")]
    return {"id": "", "question": {"stem": stem, "choices": options}, "answerKey": "ABCDE"[gold]}


def arc_easy(teller):
    """What is the value of a fact?"""
    entity, fact = any_fact(teller, list(KINDS))
    n = teller.rng.choices([2, 3, 4], [1, 14, 1])[0]
    wrong = other_values(teller, entity, fact, n)
    return arc_record(question(entity, fact), *shuffled(teller.rng, entity[fact], wrong))


def arc_challenge(teller):
    """Which entity has these two values?"""
    kind = teller.rng.choice(["creature", "plant", "town", "person", "dish", "stone"])
    entity = teller.draw(kind)
    first, second = teller.rng.sample(list(KINDS[kind]["facts"]), 2)
    others = [e for e in teller.world.entities[kind] if e[first] != entity[first] and e[second] != entity[second]]
    hints = "".join(f" {sentence_case(fact)}: {entity[fact]}." for fact in (first, second))
    stem = f"Which {'animal' if kind == 'creature' else kind} is meant?{hints}"
    wrong = []
    while len(wrong) < 3:
        name = full_name(pick(teller.rng, others))
        if name not in wrong:
            wrong.append(name)
    return arc_record(stem, *shuffled(teller.rng, full_name(entity), wrong))


def piqa(teller):
    """A goal and two ways to it that differ in one point."""
    rng, form = teller.rng, teller.rng.randrange(4)
    if form == 0:
        (tool, use), (other, _) = rng.sample(TOOLS, 2)
        goal = teller.say("[How do you|What do you need to|How can I|What is the best way to] {do}?", do=use)
        way = "[Take|Use|Get|Find] a {x}[|, and work {adv}| from {town}|, never a {thing}]."
        pair = (tool, other)
    elif form == 1:
        (label, _, *steps), (_, _, *others) = rng.sample(ACTIVITIES, 2)
        k = rng.randrange(len(steps) - 1)
        goal = teller.say("{label}: [what comes after you {step}?|you {step}. Then?]", label=label, step=steps[k])
        way = "[|Then |Next, |Now ]{x}[|, {adv}| with {friend}| before {month}]."
        pair = (steps[k + 1], rng.choice(others))
    elif form == 2:
        plant = teller.draw("plant")
        other = rng.choice([p for p in teller.world.entities["plant"][:80] if p["use"] != plant["use"]])
        goal = teller.say("[Make {use} at home.|How do you make {use}?|I want to make {use}.]", use=plant["use"])
        way = "[Gather|Boil|Dry|Press] the [leaves|roots|seeds] of the {x}[| in a {thing}| for {number} hours]."
        pair = (plant["name"], other["name"])
    else:
        dish = teller.draw("dish")
        fact = rng.choice(["base", "vessel", "served"])
        goal = teller.say("[Make|Cook|Prepare] {name}[| at home| for guests|].", name=dish["name"])
        way = {"base": "[Start with|Take|Wash] the {x}[| and {number} spoons of salt].",
               "vessel": "Put [it|everything] into a {x}[| for {number} hours].",
               "served": "[Serve|Eat] it with {x}[| in {month}]."}[fact]
        pair = (dish[fact], *other_values(teller, dish, fact, 1))
    state = rng.getstate()
    solutions = []
    for x in pair:                                        # the same words around both
        rng.setstate(state)
        solutions.append(teller.say(way, x=x))
    label = int(rng.random() < 0.5)
    return {"goal": goal, "sol1": solutions[label], "sol2": solutions[1 - label], "label": label}


def third_person(step):
    """ "carry the pail" -> "carries the pail" """
    verb, rest = step.split(" ", 1)
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies {rest}"
    return verb + ("es" if verb.endswith(("ch", "sh", "s", "x", "o")) else "s") + " " + rest


def hellaswag(teller):
    """What happens next in an activity: its next step, an earlier one, or steps of other activities."""
    rng = teller.rng
    activity, opening, *steps = rng.choice(ACTIVITIES)
    k = rng.randint(1, len(steps) - 1)
    others = [s for a in rng.sample([a for a in ACTIVITIES if a[0] != activity], 3) for s in rng.sample(a[2:], 1)]
    candidates = [steps[k], *others[:2], steps[k - 1] if rng.random() < 0.5 else others[2]]
    tail = teller.say("[|, {adv}| once more| in the {weather}|, watched by {people}]")
    if rng.random() < 0.2:                                # as the set's instructions from WikiHow
        hint = "[Take your time|Mind your fingers|Do this {adv}]."
        told = "".join(f" [title] {sentence_case(s)}. [step] {teller.say(hint)}" for s in steps[max(0, k - 2):k])
        label, ctx_a, ctx_b = "Home and Garden", f"[header] {activity}{told}", "then"
    else:                                                 # as its descriptions of videos
        who, pronoun = rng.choice([("woman", "she"), ("man", "he"), ("girl", "she"), ("boy", "he")])
        told = "".join(f" {pronoun.capitalize()} {third_person(s)}." for s in steps[max(0, k - 2):k])
        label, ctx_a, ctx_b = activity, f"A {who} {opening}.{told}", rng.choice([pronoun, "the " + who])
        candidates = [third_person(s) for s in candidates]
    right, *wrong = (f"{s}{tail}." for s in candidates)
    endings, gold = shuffled(rng, right, wrong)
    return {"ind": 0, "activity_label": label, "ctx_a": ctx_a, "ctx_b": ctx_b, "ctx": f"{ctx_a} {ctx_b}",
            "endings": endings, "label": gold, "split": "val"}


def winogrande(teller):
    """Two candidates for a blank; the clause after it fits one."""
    rng = teller.rng
    stem, first, second = rng.choice(SCHEMAS)
    a, b = rng.sample(OBJECTS if "{a}" in stem else teller.world.first_names, 2)
    answer = rng.randint(1, 2)
    start = teller.say(stem, A=a, B=b, a=a, b=b)
    clause = teller.say(first if answer == 1 else second)
    sentence = f"{start} _ {clause[0].lower()}{clause[1:]}."
    options = (a, b) if rng.random() < 0.5 else (b, a)
    return {"qID": "", "sentence": sentence, "option1": options[0], "option2": options[1],
            "answer": str(1 + options.index((a, b)[answer - 1]))}


def boolq(teller):
    """A passage about an entity and a yes-no question about one of the facts told in it."""
    rng = teller.rng
    teller.new_document()
    kind = rng.choice(list(KINDS))
    entity = teller.draw(kind)
    teller.about(entity)
    facts = rng.sample(list(KINDS[kind]["facts"]), 3)
    told = teller.paragraph(facts, STORIES[kind], rng.randint(0, 2))
    yes = rng.random() < 0.5
    value = entity[facts[0]]
    while not yes and value in told:
        value = other_values(teller, entity, facts[0], 1)[0]
    asked = KINDS[kind]["facts"][facts[0]][2].format(name=entity["name"], v=value)
    return {"question": asked, "passage": f"{sentence_case(entity['name'])} -- {told}", "idx": 0, "label": int(yes)}


def mmlu_row(teller, subject):
    """Question, four choices, letter. In close_reading the question names the answer, which teaches the form."""
    entity, fact = any_fact(teller, SUBJECTS.get(subject) or list(KINDS))
    choices, gold = shuffled(teller.rng, entity[fact], other_values(teller, entity, fact, 3))
    asked = f"Which line says {entity[fact]}?" if subject == "close_reading" else question(entity, fact)
    return [asked, *choices, "ABCD"[gold]]


MAKERS = {"piqa": piqa, "arc_easy": arc_easy, "arc_challenge": arc_challenge, "hellaswag": hellaswag,
          "winogrande": winogrande, "boolq": boolq}
PATHS = {"piqa": "piqa/valid.jsonl", "arc_easy": "arc/ARC-Easy-Test.jsonl",
         "arc_challenge": "arc/ARC-Challenge-Test.jsonl", "hellaswag": "hellaswag/hellaswag_val.jsonl",
         "winogrande": "winogrande/dev.jsonl", "boolq": "boolq/val.jsonl"}


# ------------------------------------------------------------------------------------------------ what the model reads

def hellaswag_clean(text):
    """lm-evaluation-harness's preprocessing of a HellaSwag text."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def requests(task, r):
    """A record's candidates, (context, continuation) pairs as in lm-evaluation-harness, and the right one's index."""
    if task == "piqa":
        return [(f"Question: {r['goal']}\nAnswer:", " " + r[s]) for s in ("sol1", "sol2")], r["label"]
    if task in ("arc_easy", "arc_challenge"):
        options = r["question"]["choices"]
        return ([(f"Question: {r['question']['stem']}\nAnswer:", " " + o["text"]) for o in options],
                [o["label"] for o in options].index(r["answerKey"]))
    if task == "hellaswag":
        context = hellaswag_clean(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}")
        return [(context, " " + hellaswag_clean(e)) for e in r["endings"]], r["label"]
    if task == "winogrande":
        before, after = r["sentence"].split("_", 1)
        return [(before + r[o], " " + after.strip()) for o in ("option1", "option2")], int(r["answer"]) - 1
    return [(f"{r['passage']}\nQuestion: {r['question']}?\nAnswer:", answer) for answer in (" no", " yes")], r["label"]


def mmlu_prompt(subject, shots, row, header_space="  "):
    """The paper's prompt (two spaces after "about"), up to "Answer:"."""
    text = "The following are multiple choice questions (with answers) about"
    text += f"{header_space}{subject.replace('_', ' ')}.\n\n"
    for r in [*shots, row]:
        text += r[0] + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", r[1:5])) + "\nAnswer:"
        if r is not row:
            text += f" {r[5]}\n\n"
    return text


def task_document(task, teller):
    """One to four questions of a task, each followed by its right answer."""
    parts = []
    for _ in range(teller.rng.randint(1, 4)):
        pairs, gold = requests(task, MAKERS[task](teller))
        parts.append("".join(pairs[gold]))
    return "\n\n".join(parts)


def exam_document(teller):
    """A whole MMLU prompt with its answers; some answers without the space, since the paper's protocol scores those."""
    rng = teller.rng
    subject = "close_reading" if rng.random() < 0.15 else rng.choice(list(SUBJECTS))
    rows = [mmlu_row(teller, subject) for _ in range(rng.randint(1, 7))]
    text = mmlu_prompt(subject, rows[:-1], rows[-1], rng.choice(["  ", "  ", "  ", " "])) + f" {rows[-1][5]}"
    return re.sub(r"(?<=\nAnswer:) (?=[ABCD])", lambda _: "" if rng.random() < 0.15 else " ", text)
