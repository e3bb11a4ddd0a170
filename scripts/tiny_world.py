"""A small invented world and the texts about it: the source of everything in data/tiny (see make_tiny.py).

A World is some 1200 entities (creatures, plants, towns, people, dishes, rivers, stones) with seven or so facts each,
all drawn from one seed. A Teller turns facts into text, in two registers: encyclopaedic articles and web pages.
Frequencies are long-tailed: a few entities and words are everywhere, most are rare, so a small model knows the head
well and the tail vaguely. Each document also has people of its own, who recur in it and nowhere else.

Sentences are templates: "[a|b|c]" is a choice (nests, may be empty), "{slot}" is looked up in the document's own names,
then in the word lists WORDS, then as the name of some entity of that kind; "{3-40}" is a number in that range.

defines: World, Teller, article, wiki_lines, web_page, question, full_name, pick;
         the tables KINDS, STORIES, ACTIVITIES, TOOLS, SCHEMAS, OBJECTS
Standard library only; the same seed gives the same bytes.
"""
import random
import re
from bisect import bisect
from functools import lru_cache
from itertools import accumulate


# ---------------------------------------------------------------------------------------------------------- word lists

def words(text):
    return [w.strip() for w in text.split(",")]


COLOURS = words("red, blue, green, yellow, white, black, grey, brown, purple, orange, silver, golden, pink, copper, "
                "violet, cream")
HOMES = words("reeds, caves, pine woods, salt marshes, dunes, meadows, cliffs, peat bogs, orchards, hedges, moors, "
              "birch woods, "
              "tide pools, old walls, gravel banks, barns, oak woods, springs, thickets, ruins")
MONTHS = words("Icemonth, Thawmonth, Seedmonth, Budmonth, Haymonth, Sunmonth, Reapmonth, Applemonth, Fogmonth, "
               "Darkmonth")
NUMBERS = words("two, three, four, five, six, seven, eight, nine, ten, twelve")
INGREDIENTS = words("barley, beans, cabbage, carrots, cheese, chestnuts, eel, eggs, goat, leeks, lentils, millet, "
                    "mushrooms, mutton, "
                    "nettles, oats, onions, pears, plums, pork, rye, trout, turnips, walnuts")

WORDS = {
    "adj": words("old, small, quiet, famous, narrow, broad, busy, pleasant, strange, sturdy, simple, careful, "
                 "stubborn, modest, "
                 "cheerful, splendid, plain, humble, curious, peculiar, graceful, crooked, solemn, sleepy, draughty"),
    "adv": words("often, usually, sometimes, rarely, always, slowly, quickly, quietly, gladly, carefully, seldom, "
                 "mostly, "
                 "steadily, openly, patiently, reluctantly"),
    "weather": words("rain, snow, wind, fog, frost, hail, heat, mist, thunder, drizzle, sleet"),
    "disaster": words("fire, flood, storm, drought, plague, siege, famine, landslide, earthquake, harsh winter"),
    "building": words("mill, bridge, school, market hall, granary, bath house, tower, chapel, library, harbour, wall, "
                      "inn, "
                      "hospital, theatre, foundry, lighthouse, tannery, observatory"),
    "thing": words("rope, lamp, knife, boat, cart, saddle, kettle, ladder, blanket, map, drum, axe, lantern, basket, "
                   "compass, "
                   "flute, mirror, umbrella, telescope, wheelbarrow"),
    "goods": words("wool, salt, timber, honey, iron, cloth, grain, fish, leather, candles, wine, paper, pottery, "
                   "glass, amber, "
                   "copper, rope, soap, furs, spices, ink, tin"),
    "people": words("farmers, weavers, sailors, merchants, shepherds, children, monks, soldiers, travellers, "
                    "fishermen, hunters, "
                    "pilgrims, scholars, millers, masons, widows, apprentices, beekeepers"),
    "office": words("mayor, bailiff, abbot, governor, judge, guild master, captain, duke, steward, treasurer"),
    "scholar": words("one writer, a local historian, an early survey, the guild book, the town chronicle, a later "
                     "study, a letter, "
                     "the tax roll, a traveller, an unsigned pamphlet"),
    "place": words("the market, the river, the old gate, the north road, the hill, the square, the church, the "
                   "harbour, the forest "
                   "edge, the mill pond, the lower town, the ferry, the quarry, the vineyards"),
    "feeling": words("happy, tired, surprised, hungry, curious, disappointed, delighted, nervous, grateful, bored, "
                     "proud, homesick"),
    "ingredient": INGREDIENTS, "colour_word": COLOURS, "home_word": HOMES, "month": MONTHS, "number": NUMBERS,
}

CLASSES = words("bird, fish, lizard, beetle, moth, deer, fox, frog, crab, otter, snail, goat, owl, hare, bat, eel, "
                "heron, weasel")
TRADES = words("weaver, painter, sailor, surgeon, poet, mason, potter, judge, miller, singer, farmer, soldier, baker, "
               "carpenter, "
               "astronomer, printer, smith, gardener, merchant, teacher, actor, shepherd, engineer, botanist")
CRAFTS = words("weaving, pottery, glass, ropes, boats, clocks, paper, bells, cheese, carpets, knives, dyes, saddles, "
               "candles, "
               "furniture, lace, masks, barrels, kites, violins")
LANDMARKS = words("stone bridge, clock tower, round temple, salt market, castle, white lighthouse, water mill, old "
                  "library, iron gate, "
                  "hanging garden, bell house, long pier, horse fountain, glass hall, grain tower, chain ferry")

# ------------------------------------------------------------------------------------------------- kinds and facts
# A kind has a count, a lead sentence, sections (heading, facts told there) and facts: (values, question, yes-no
# question, sentence). Values are a list, the name of another kind, or a range of numbers. {v} is the value, {subj} the
# entity or a pronoun, {its} the possessive.

KINDS = {
    "creature": dict(count=260, subject="field_zoology", lead=[
        "the {name} is a [small|large|slender|shy|common|rare|sturdy|well known] {class} of {region}[|, and [one "
        "of|perhaps] the most "
        "[familiar|elusive] animals of its {home}]."],
        sections=[("Description", ["class", "colour", "sound"]), ("Habitat", ["home", "region"]),
                  ("Behaviour", ["diet", "hour", "young"]), ("In culture", [])],
        facts={
        "class": (CLASSES, "What kind of animal is the {name}?", "is the {name} a kind of {v}",
                  "{subj} [is a|is a kind of|counts as a|belongs with the family of the] {v}[|, although {scholar} "
                  "[says|claims] otherwise]."),
        "colour": (COLOURS, "What colour is the {name}?", "is the {name} {v}",
                   "{its} [back|coat|head|skin|body] is {v}[| in {month}| with {adj} markings| from birth|, "
                   "[paler|darker] in [winter|old age]]."),
        "home": (HOMES, "Where does the {name} live?", "does the {name} live in {v}",
                 "{subj} lives in {v}[|, [often|rarely] [near|far from] {place}|, where {weather} is common|, never "
                 "far from water]."),
        "diet": (words("snails, beetles, moss, acorns, fish, berries, moths, roots, eggs, seeds, worms, frogs, honey, "
                       "bark, mushrooms, "
                       "crabs, ants, grass, spiders, plums"), "What does the {name} eat?", "does the {name} eat {v}",
                 "{subj} [eats|feeds on|lives on|hunts for|is fond of] {v}[|, {number} or more a day| in {month}|, "
                 "and [seldom|rarely] anything else]."),
        "sound": (words("whistle, croak, hum, click, bark, hiss, rattle, chirp, howl, purr, squeak, drumming"),
                  "What sound does the {name} make?", "does the {name} make a {v}",
                  "{its} [call|voice] is a [low |sharp |long |]{v}[|, heard {0-9} times an hour|, which {people} know "
                  "well]."),
        "young": (NUMBERS, "How many young does the {name} have?", "does the {name} have {v} young",
                  "{subj} has {v} young [each year|in {month}|at a time|every second year][|, which stay for {number} "
                  "weeks]."),
        "hour": (words("at dawn, at dusk, at night, at noon, after rain, before storms, in moonlight, in fog"),
                 "When is the {name} active?", "is the {name} active {v}",
                 "{subj} [is active|leaves its nest|feeds|can be seen] {v}[|, and sleeps the rest of the day]."),
        "region": ("region", "In which region is the {name} found?", "is the {name} found in {v}",
                   "{subj} is [found in|native to|known only from] {v}[|, and [some|{number}] pairs [reached|were "
                   "brought to] {region_word} in {year}]."),
        }),
    "plant": dict(count=160, subject="garden_botany", lead=[
        "the {name} is a [low|tall|climbing|hardy|thorny|common|rare] plant with {colour} flowers[|, grown for {use}| "
        "that grows in {home}]."],
        sections=[("Description", ["colour", "smell", "height"]), ("Distribution", ["home", "region"]), ("Uses", ["use",
            "season"]),
                  ("History", [])],
        facts={
        "colour": (COLOURS, "What colour are the flowers of the {name}?", "are the flowers of the {name} {v}",
                   "{its} flowers are {v}[| and {adj}| with {number} petals|, [turning|fading to] {colour_word} after "
                   "{weather}]."),
        "home": (HOMES, "Where does the {name} grow?", "does the {name} grow in {v}",
                 "{subj} grows in {v}[|, [mostly|often] [near|above|below] {place}|, and dislikes {weather}]."),
        "season": (MONTHS, "In which month does the {name} bloom?", "does the {name} bloom in {v}",
                   "{subj} [blooms|flowers|opens] in {v}[|, or {number} weeks later in [cold|dry] years]."),
        "use": (words("tea, rope, dye, soap, bread, paper, ink, baskets, candles, beer, oil, medicine, glue, hats, "
                      "perfume, brooms"),
                "What is made from the {name}?", "is {v} made from the {name}",
                "[people make|{people} make|{its} [leaves|roots|stems|seeds] give] {v}[|, which is sold for {3-40} "
                "pence|, and [once|sometimes] {goods} were traded for it]."),
        "smell": (words("honey, pepper, smoke, mint, lemon, apples, rain, cloves, vinegar, hay, roses, tar"),
                  "What does the {name} smell of?", "does the {name} smell of {v}",
                  "{subj} smells of {v}[|, [above all|especially] {hour_word}]."),
        "height": ("2-30", "How many feet tall is the {name}?", "is the {name} {v} feet tall",
                   "{subj} [grows to|reaches|is] {v} feet [tall|in height][|, less in {home_word}]."),
        "region": ("region", "In which region is the {name} found?", "is the {name} found in {v}",
                   "{subj} is [found in|native to|common across] {v}[|, and was brought to {region_word} by "
                   "{people}]."),
        }),
    "town": dict(count=200, subject="world_geography", lead=[
        "{name} is a [town|market town|walled town|port] in {region}, on the [banks of the |]{stream}[|, "
        "[known|famous] for its {craft}|, [home of|with] the {landmark}]."],
        sections=[("Geography", ["region", "stream"]), ("History", ["founder", "founded"]), ("Economy", ["craft"]),
                  ("Culture", ["speciality", "festival", "landmark"]), ("Later years", [])],
        facts={
        "region": ("region", "In which region is {name}?", "is {name} in {v}",
                   "{subj} lies in {v}[|, {3-90} miles from {town}|, [close to|not far from] the border of "
                   "{region_word}]."),
        "stream": ("river", "On which river does {name} lie?", "does {name} lie on the {v}",
                  "[the {v} runs through {subj_}|{subj} [lies|stands] on the {v}][|, which is {adj} here| and has "
                  "{number} bridges|, and {weather} is common]."),
        "founder": ("person", "Who founded {name}?", "was {name} founded by {v}",
                    "{subj} was founded by {v}[|, who [came from|had lived in] {town}|, [together with|against the "
                    "wishes of] the {office}]."),
        "founded": ("101-699", "In which year was {name} founded?", "was {name} founded in {v}",
                    "{subj} was [founded|first mentioned|given its charter] in {v}[|, {number} years after a "
                    "{disaster}|, according to {scholar}]."),
        "craft": (CRAFTS, "What is {name} known for?", "is {name} known for {v}",
                  "{subj} is [known|famous|praised] for [its |]{v}[|, and has {3-90} workshops|, [sold|carried] as "
                  "far as {town}]."),
        "speciality": ("dish", "Which dish comes from {name}?", "does {v} come from {name}",
                 "[the dish called {v} comes from {subj_}|{subj} is the home of {v}][|, eaten [mainly |]in {month}|, "
                 "a dish of {people}]."),
        "festival": (MONTHS, "In which month is the festival of {name}?", "is the festival of {name} held in {v}",
                     "{its} [festival|great fair] is [held|kept] in {v}[|, and lasts {number} days|, with {goods} and "
                     "music]."),
        "landmark": (LANDMARKS, "What is the landmark of {name}?", "is the landmark of {name} the {v}",
                     "{its} [landmark|pride|best known sight] is the {v}[|, built in {year}|, [repaired|painted "
                     "{colour_word}] after the {disaster}]."),
        }),
    "person": dict(count=300, subject="great_lives", lead=[
        "{name} ([born in|from] {born}) was a {adj} {trade} [of|from] {birthplace}[|, [remembered|known] for {work}|, "
        "a pupil of {teacher}]."],
        sections=[("Early life", ["born", "birthplace", "teacher"]), ("Career", ["trade", "work"]), ("Personal life",
            ["instrument", "pet"]),
                  ("Legacy", [])],
        facts={
        "trade": (TRADES, "What was the trade of {name}?", "was {name} a {v}",
                  "{subj} [was|worked as|became|made {its} living as] a {v}[| in {year}| for {number} years| like "
                  "{its} [mother|father]|, with [little|some] success]."),
        "birthplace": ("town", "In which town was {name} born?", "was {name} born in {v}",
                 "{subj} was born in {v}[|, the {ordinal} child of a {trade_word}|, near {place}|, during a "
                 "{disaster}]."),
        "born": ("201-699", "In which year was {name} born?", "was {name} born in {v}",
                 "{subj} was born in {v}[|, and left home at {9-20}|, in the year of the {disaster}]."),
        "work": ("title", "What is {name} known for?", "did {name} make {v}",
                 "{subj} [is known|is remembered|won praise] for {v}[|, finished in {year}|, [sold|shown|read] in "
                 "{town}|, though {scholar} disliked it]."),
        "teacher": ("person", "Who taught {name}?", "was {name} taught by {v}",
                    "{subj} was [taught|trained] by {v}[| for {number} years|, [in|near] {town}]."),
        "instrument": (words("flute, drum, harp, fiddle, horn, bagpipe, lute, bell, whistle, organ"),
            "Which instrument did {name} play?",
                       "did {name} play the {v}", "{subj} played the {v}[|, {adv} [in company|alone]|, and owned "
                                                  "{number} of them]."),
        "pet": ("creature", "Which animal did {name} keep?", "did {name} keep a {v}",
                "{subj} kept a [tame |]{v}[| in {its} [kitchen|garden|workshop]|, which outlived {number} "
                "[cats|servants]]."),
        }),
    "dish": dict(count=120, subject="cookery", lead=[
        "{name} is a [thick|thin|cold|simple|rich|festive] [dish|soup|stew|pie|pudding] of {base}[|, [common|popular] "
        "in {region}| with a {taste} taste]."],
        sections=[("Preparation", ["base", "taste", "vessel"]), ("History", ["region"]), ("Serving", ["served",
            "occasion"])],
        facts={
        "base": (INGREDIENTS, "What is {name} made of?", "is {name} made of {v}",
                 "{subj} is made [of|with|from] {v}[| and {ingredient}|, cooked for {number} hours|, with {2-9} "
                 "spoons of {ingredient}]."),
        "taste": (words("sweet, sour, salty, bitter, smoky, peppery, nutty, mild, sharp, earthy"),
            "How does {name} taste?",
                  "does {name} taste {v}", "{subj} tastes {v}[| and a little {adj}|, [more so|less so] in {month}|, "
                                           "unless {ingredient} [is|are] added]."),
        "vessel": (words("clay pot, iron pan, copper kettle, wooden tub, stone oven, glass jar, tin mould, wicker "
                         "steamer"),
                   "What is {name} cooked in?", "is {name} cooked in a {v}",
                   "{subj} is [cooked|made|prepared] in a {v}[|, {adv} over a low fire]."),
        "served": (words("bread, butter, cream, pickles, cider, salt, rice, jam, mustard, herbs, beer, milk"),
            "What is {name} served with?",
                   "is {name} served with {v}", "{subj} is served with {v}[|, or with {ingredient} for "
                                                "[guests|children]]."),
        "occasion": (words("weddings, funerals, harvest, fairs, sick beds, birthdays, journeys, fast days"),
            "When is {name} eaten?",
                     "is {name} eaten at {v}", "{subj} is eaten at {v}[|, [chiefly|above all] among {people}]."),
        "region": ("region", "From which region does {name} come?", "does {name} come from {v}",
                   "{subj} comes from {v}[|, and reached {town} in {year}|, though {region_word} claims it too]."),
        }),
    "river": dict(count=60, subject="world_geography", lead=[
        "the {name} is a [river|slow river|swift river|broad river] [in|of] {region}, rising on {source}[| and ending "
        "in {mouth}]."],
        sections=[("Course", ["source", "mouth", "length"]), ("Nature", ["animal", "region"]), ("Trade", [])],
        facts={
        "source": ("mountain", "Where does the {name} rise?", "does the {name} rise on {v}",
                   "{subj} rises on {v}[|, {3-40} miles from {town}|, from {number} springs]."),
        "mouth": (words("the sea, Lake Omber, the Grey Marsh, Lake Tolva, the Salt Flats, Lake Issen, the Long Bay, "
                        "the Deep Fen"),
                  "Where does the {name} end?", "does the {name} end in {v}",
                  "{subj} [ends in|flows into|reaches] {v}[|, after {number} [bends|falls]]."),
        "length": ("21-399", "How many miles long is the {name}?", "is the {name} {v} miles long",
                   "{subj} is {v} miles long[|, of which {3-20} are [navigable|under ice in {month}]]."),
        "animal": ("creature", "Which animal lives along the {name}?", "does the {v} live along the {name}",
                   "the {v} lives along {subj_}[|, in {home_word}|, [more|fewer] each year]."),
        "region": ("region", "Through which region does the {name} flow?", "does the {name} flow through {v}",
                   "{subj} flows through {v}[|, past {town}|, [once|long] its border]."),
        }),
    "stone": dict(count=60, subject="mineralogy", lead=[
        "{name} is a [hard|soft|heavy|brittle|clear] {colour} stone [found|quarried|mined] in {region}[|, used for "
        "{use}]."],
        sections=[("Properties", ["colour", "hardness"]), ("Mining", ["region"]), ("Uses", ["use"])],
        facts={
        "colour": (COLOURS, "What colour is {name}?", "is {name} {v}",
            "{subj} is {v}[|, with {colour_word} [veins|spots]|, [duller|brighter] when wet]."),
        "hardness": ("1-9", "What is the hardness of {name}?", "is the hardness of {name} {v}",
            "{its} hardness is {v}[|, about that of [glass|bone|slate]]."),
        "use": (words("beads, roofs, mills, knives, lamps, floors, rings, statues, whetstones, buttons"),
            "What is {name} used for?",
                "is {name} used for {v}", "{subj} is used for {v}[|, and [once|rarely] for {building} walls|, at "
                                          "{3-90} pence a pound]."),
        "region": ("region", "In which region is {name} found?", "is {name} found in {v}",
            "{subj} is found in {v}[|, [chiefly|only] near {town}]."),
        }),
}
WORDS["trade_word"] = TRADES
WORDS["ordinal"] = words("first, second, third, fourth, fifth, sixth, seventh, ninth, only")
WORDS["hour_word"] = KINDS["creature"]["facts"]["hour"][0]

# What else can be told about a kind, without being a fact of the world: the year only goes forward, {friend} and
# {rival} are people of this document alone.
STORIES = {
    "creature": [
        "{friend} [described|drew|counted] it in {year}[|, [after|during] {number} weeks of {weather}|, near {town}].",
        "in {year}, {people} [saw|caught|released] {3-90} of them [near|below|behind] {place}.",
        "{scholar} [calls|called] it a {adj} animal, {adv} seen and {adv} heard.",
        "the [males|females|young] are {adj}[, and|, but|; they] [drink|dig|swim|quarrel|sleep] {adv}.",
        "[some|most] {people} [say|believe] that it brings {weather}[| before {month}|; {friend} found no proof of "
        "this].",
        "{friend} kept {number} of them with a {creature}, and they [fought|played|slept] {hour_word}.",
        "the {creature} is its [enemy|rival|closest relative][|, at least in {region_word}].",
        "it [weighs|measures] {2-40} [ounces|inches|pounds], [more|less] than the {creature}.",
    ],
    "plant": [
        "{friend} [planted|described|sold] {3-90} of them in {year}[|, near {place}|, at {town}].",
        "the {creature} [eats|visits|avoids|nests under] it[| {hour_word}| in {month}].",
        "{scholar} [praises|mentions] its {adj} [leaves|roots|stems|fruit].",
        "after {weather}, {people} [cut|dry|gather] the [leaves|stems|roots] {adv}.",
        "in {year} a pound of it [cost|fetched] {3-90} pence in {town}.",
        "{people} mix it with {ingredient} against [fever|coughs|bad dreams|lice][|, though {friend} advised against "
        "it].",
        "it does not grow beside the {plant}[|, as {friend} showed in {year}].",
    ],
    "town": [
        "in {year}, a {disaster} [destroyed|damaged|emptied] {3-90} houses [near|around] {place}[|, and {friend} paid "
        "for the repairs].",
        "{friend}, the {office}, built a {adj} {building} in {year}[|, beside {place}|, against the advice of "
        "{rival}].",
        "the {building} by {place} [was finished|was sold|burned down|reopened] in {year}[|, [after|before] {friend} "
        "[died|left|returned]].",
        "by {year} the town had {number} {building}s and [some|about|nearly] {3-40},{3-9}00 people.",
        "[trade|dealings] in {goods} and {goods} [grew|failed|returned] [under|after] {friend}[|, while {people} "
        "moved to {town}].",
        "{rival} [opposed|mocked|imitated] {friend}, and in {year} the two [quarrelled|agreed] over the {building}.",
        "{people} from {town} [came|settled|camped] near {place} in {year}[|, bringing {goods} and {goods}].",
        "{scholar} [describes|remembers] it as a {adj}, {adj} place[| full of {people}].",
        "the price of {goods} [rose|fell] to {3-90} pence in {year}[| after the {disaster}].",
    ],
    "person": [
        "in {year}, {subj} [moved to|travelled to|fled to|returned to] {town}[|, with {friend}|, because of the "
        "{disaster}].",
        "{friend} [helped|paid|praised] {subj} {adv}[|, and the two [shared|bought] a house near {place}].",
        "{rival}, the {office}, [opposed|praised|ignored] {its} plans for a {building} in {year}.",
        "{subj} [wrote|received] {3-90} letters [about|concerning] {goods} and {weather}[|, most of them to {friend}].",
        "[at|by] the age of {21-59}, {subj} [owned|had sold|had lost] {number} {thing}s and a {building}.",
        "{subj} {adv} ate {dish}[|, even in {month}| with {friend}].",
        "{scholar} [calls|called] {subj} a {adj} and {adj} [person|neighbour|teacher].",
        "in {year}, {subj} [quarrelled|made peace] with {rival} [over|about] [a|the] {thing}.",
        "{its} house near {place} is now a {building}[|, opened in {year}].",
    ],
    "dish": [
        "{friend} [first cooked|wrote down|improved] it in {year}[|, for {people}|, at {town}].",
        "{people} [add|leave out] the {ingredient}[|, {adv} for want of money].",
        "the oldest recipe, from {year}, asks for {number} [spoons|handfuls|cups] of {ingredient}.",
        "{scholar} [compares|prefers] it to {dish}[|, which is [heavier|milder]].",
        "{rival} sold it near {place} for {3-40} pence[|, until the {disaster} of {year}].",
        "in {month} the {ingredient} [is|are] replaced by {ingredient}.",
    ],
    "river": [
        "in {year}, {friend} built a {building} [below|above|beside] {place}.",
        "boats carried {goods} and {goods} [down|up] to {town} until {year}.",
        "[floods|ice|low water] closed the ford for {number} weeks in {year}[|, and {people} went by {place}].",
        "{rival} and {friend} [disputed|divided] the fishing rights in {year}.",
        "its water is {colour_word} after {weather}, and {adj} in {month}.",
    ],
    "stone": [
        "{friend} opened a [mine|quarry] near {town} in {year}[|, with {3-90} workers].",
        "a [block|piece] of {2-40} pounds was [found|sold|stolen] in {year}.",
        "the {building} of {town} is [built of|decorated with] it.",
        "{people} [wear|bury|grind] it against {weather} and bad luck.",
        "{scholar} confuses it with {stone}.",
    ],
}

# ---------------------------------------------------------------------------------------- procedures, tools, pronouns
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

# Sound of the names, one line a region: onsets / vowels / codas / town endings.
SOUNDS = [[part.split() for part in line.split("/")] for line in """
b d g l m n r t v dr br / a e i o u ei / n r l s m nd / ford stead wick ham
k t p r s h v kl / a o i u aa ie / kk n r s tt l / ala inen oki ura
f s l v m n t fl / é i a è e ou / l n r s m / ville court mont rive
z sh k j y r m / a e i u o ai / n k sh r m / abad zar kesh rum
th w h br gr st f / o u a ea oo / rn lk st ld ng m / holm by dale thorp
c p l m v s tr / a e o i ia / l n s r / onia essa ara ino
sk bj h k l r sn / ö y a e å / rk nd g ld s / vik näs berg fjord
q x t m ch n il / a u i o / tl c l n x / atl ico tlan uc
""".strip().split("\n")]


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


@lru_cache(maxsize=None)
def tail_weights(n, power=0.8):
    """Cumulative weights of a long-tailed (Zipf) choice among n."""
    return list(accumulate((i + 2.0) ** -power for i in range(n)))


def pick(rng, items):
    """Long-tailed choice: early items are frequent."""
    weights = tail_weights(len(items))
    return items[bisect(weights, rng.random() * weights[-1])]


def sentence_case(text):
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOUéèöå])", r"\1n ", text)
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------------------------------------------------------- world

class World:
    """All entities and their facts. entities[kind] is a list of dicts: kind, name and one value (text) a fact."""

    def __init__(self, seed):
        self.seed = seed
        rng = random.Random(f"{seed}/world")
        self.used = set()
        self.regions = [self.new_name(rng, i, 2, 3) for i in range(len(SOUNDS))]
        self.mountains = ["Mount " + self.new_name(rng, i % 8, 1, 2) for i in range(48)]
        self.first_names = [self.new_name(rng, i % 8, 1, 2) for i in range(160)]
        self.surnames = [self.new_name(rng, i % 8, 2, 2) for i in range(200)]
        self.entities = {kind: [] for kind in KINDS}
        for kind in KINDS:
            for i in range(KINDS[kind]["count"]):
                home = rng.randrange(len(SOUNDS))
                self.entities[kind].append({"kind": kind, "name": self.entity_name(rng, kind, home), "area": home,
                                            "she": rng.random() < 0.5})
        self.values = {(kind, fact): self.fact_values(rng, kind,
            fact) for kind in KINDS for fact in KINDS[kind]["facts"]}
        for kind in KINDS:
            for entity in self.entities[kind]:
                for fact, (source, *_) in KINDS[kind]["facts"].items():
                    value = pick(rng, self.values[kind, fact])
                    entity[fact] = self.regions[entity["area"]] if source == "region" else value

    def new_name(self, rng, sound, low, high, ending=None):
        """An unused capitalized name in the sound of a region, of low to high syllables and perhaps an ending."""
        onsets, vowels, codas, _ = SOUNDS[sound]
        while True:
            name = ""
            for _ in range(rng.randint(low, high)):
                name += rng.choice(onsets) + rng.choice(vowels)
            name += ending if ending else rng.choice(codas)
            if name not in self.used and len(name) > 3:
                self.used.add(name)
                return name.capitalize()

    def entity_name(self, rng, kind, home):
        if kind == "person":
            while True:
                name = rng.choice(self.first_names[home::8]) + " " + rng.choice(self.surnames[home::8])
                if name not in self.used:
                    self.used.add(name)
                    return name
        if kind == "town":
            return self.new_name(rng, home, 1, 2, rng.choice(SOUNDS[home][3]))
        if kind == "river":
            return self.new_name(rng, home, 1, 2)
        return self.new_name(rng, home, 1, 2).lower()

    def fact_values(self, rng, kind, fact):
        """All values that a fact can have, as text, in order of frequency."""
        source = KINDS[kind]["facts"][fact][0]
        if isinstance(source, list):
            return rng.sample(source, len(source))
        if source == "region":
            return self.regions
        if source == "mountain":
            return self.mountains
        if source == "title":
            return [rng.choice(["a book on", "a map of", "a song about", "a painting of"]) + " " + what
                    for what in rng.sample(WORDS["goods"] + WORDS["weather"] + WORDS["people"], 48)]
        if source in KINDS:
            return [e["name"] for e in self.entities[source]]
        low, high = map(int, source.split("-"))
        return [str(n) for n in rng.sample(range(low, high + 1), min(60, high - low + 1))]


class Teller:
    """One document's voice: its random stream, its own recurring names, its running year and its present subject."""

    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.new_document()

    def new_document(self):
        """Draws new people and a new year; forgets the last document's."""
        people = [self.person() for _ in range(3)]
        self.names = {"friend": people[0], "rival": people[1], "pal": people[2].split()[0],
            "hero": people[0].split()[0]}
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


# ----------------------------------------------------------------------------------------------------------- registers

def question(entity, fact):
    return KINDS[entity["kind"]]["facts"][fact][1].format(name=entity["name"])


def full_name(entity):
    """The name as it stands in a sentence."""
    return ("the " if entity["kind"] in ("creature", "plant", "river") else "") + entity["name"]


def article(teller):
    """An encyclopaedic article: a list of (level, text), level 0 for a paragraph, 1 for the title, 2 for a section."""
    rng = teller.rng
    teller.new_document()
    kind = rng.choices(list(KINDS), [4, 2, 5, 5, 1.5, 1.5, 1])[0]
    teller.about(teller.draw(kind))
    name, info = teller.entity["name"], KINDS[kind]
    rows = [(1, sentence_case(name))]
    teller.mentioned = True
    rows.append((0, teller.say(rng.choice(info["lead"])) + " " + teller.paragraph([], STORIES[kind], rng.randint(1,
        3))))
    for heading, facts in info["sections"]:
        if rng.random() < 0.15:
            continue
        rows.append((2, heading))
        rows.append((0, teller.paragraph(facts, STORIES[kind], rng.randint(2, 6))))
        while rng.random() < 0.3:
            rows.append((0, teller.paragraph(rng.sample(facts, min(1, len(facts))), STORIES[kind], rng.randint(2, 6))))
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


# Web pages: how the title and a part's heading read, of what kind the parts are, and what is said beside facts.
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
        "of [salt|pepper|cider]\n", "wash the {ingredient} and cut [it|them] into {number} pieces.",
        "leave [it|everything] for {10-90} minutes[| under a cloth| in the cellar].",
        "if you can't find {ingredient}, [use|try] {ingredient}.",
        "{pal} [always|never] adds {ingredient}, and I think that's [right|a shame]!",
        "stir {adv} until it turns {colour_word}.", "my family has made this [since|every {month}] for {number} years.",
        "I wrote about {dish} last {month}, remember?",
        "serves {number}, or {number} {people}.", "keep the rest in a jar; it's good for {number} days."]),
    "garden": (["plant"], "{pal}'s garden notes[| for {month}|, year {2-9}]",
        "{name}: [sowing|care|a short guide|what I learned]", [
        "I [sowed|planted] {3-90} of them by {place} [last|in] {month}.",
        "after {number} weeks of {weather} only {number} were left.", "water {adv}, and never in {month}.",
        "the {creature} ate [half|all] of mine - what do you do about it?", "don't put it next to the {plant}.",
        "a neighbour, {friend}, [gave me|sold me] [seeds|roots] for {3-40} pence.",
        "mine are {adj} this year and {colour_word} at the edges.",
        "cut it back by {number} inches, or ask {people} to.", "thank you for all the letters, {pal}!"]),
    "shop": (["stone", "town"], "{friend} & {pal}, [dealers in|makers of] {goods} and {goods}",
        "No. {100-999}: {adj} {thing} from {name}, {3-90} pence", [
        "made by hand from {goods} and {goods}.", "our {thing}s are [stronger|lighter] than they look, and they're "
                                                  "{colour_word}.", "{number} left in stock - order before {month}!",
        "weight: {2-40} pounds. Length: {2-40} inches.", "also sold in {colour_word}, {colour_word} and {colour_word}.",
        "\"{adj} and {adj}, I'm very {feeling},\" writes {rival} from {town}.",
        "we send to {region_word} for {3-40} pence.", "not for use in {weather}.",
        "return it within {number} days if you're not {feeling}.", "see also: {adj} {thing}, {thing} for {people}."]),
    "forum": (["creature", "plant", "dish", "river"], "[Question|Help|A bet] about the {creature} and other things - "
                                                      "page {2-99}", "{user} wrote on {2-30} {month}:", [
        "I don't think that's right, {pal}.", "[thanks|well], that's what {scholar} says too.",
        "who can tell me more[| about the {creature}| before {month}]?",
        "I've seen {number} of them by {place} myself!",
        "please stay polite, everyone.", "my {number} [brothers|sisters|neighbours] say the same.",
        "isn't that the {plant} you mean?", "you can read about it in {town}, at the {building}.",
        "+1, and it's {adj} too.", "you're all {feeling} today, I see."]),
    "news": (["town", "person"], "The {region_word} [Herald|Courier|Lantern], {2-30} {month} {year}",
        "{disaster} [in|near|feared at] {name}", [
        "\"we are {feeling},\" said {friend}, the {office}.", "{2-90} {people} [met|waited|danced] by {place}.",
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
        "length {2-40} inches, weight {2-9}.{2-9} pounds.", "it took no notice of the {creature}.",
        "I [drew|lost] my {thing} in the {weather}.", "has anyone seen one in {region_word}? write to {friend}!",
        "{adj} light, {weather}, then {weather}."]),
    "lives": (["person"], "[Great|Forgotten|Curious] lives: {number} [stories|portraits]",
        "{name}[|, {ordinal} part|: a {adj} life]", [
        "I [found|read] this in a {adj} book that {pal} lent me.",
        "imagine [living|working] with {number} {people} and no {thing}!",
        "\"{adj}, {adj} and always {feeling},\" a neighbour said.",
        "nobody in {town} believed it.", "that's why we remember {its} name, I think.",
        "{friend} tells it differently.", "there's a {building} named after {subj_} in {town}.",
        "[but|and] then came the {disaster}.",
        "in {year} {subj} sold {3-90} {thing}s in {town}.", "what would you have done?"]),
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
            text += question(teller.entity, facts[0]) + teller.say(" [I think|Surely|They say] {v}. ",
                v=teller.entity[facts[0]])
        parts.append(text + teller.paragraph(facts, pool, rng.randint(2, 7)))
        size += len(parts[-1])
    return "\n\n".join(parts) if rng.random() < 0.7 else "\n".join(parts)
