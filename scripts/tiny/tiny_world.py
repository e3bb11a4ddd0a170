"""A small invented world, the source of everything in data/tiny (see make_tiny.py): its words, entities and facts.

A World is some 1200 entities (creatures, plants, towns, people, dishes, rivers, stones) with seven or so facts each, all
drawn from one seed. Frequencies are long-tailed: a few entities and words are everywhere, most are rare, so a small
model knows the head well and the tail vaguely. How facts become text is in tiny_texts.py, whose templates fill the
tables here: "[a|b|c]" is a choice, "{slot}" a word, a name or a number.

defines: World, words, pick; the tables WORDS, KINDS, STORIES
Usage: part of make_tiny.py. Packages: none; the same seed gives the same bytes.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import random
from bisect import bisect
from functools import lru_cache
from itertools import accumulate


# ---------------------------------------------------------------------------------------------------------- word lists

def words(text):
    return [w.strip() for w in text.split(",")]


COLOURS = words("red, blue, green, yellow, white, black, grey, brown, purple, orange, silver, golden, pink, copper, "
                "violet, cream")
HOMES = words("reeds, caves, pine woods, salt marshes, dunes, meadows, cliffs, peat bogs, orchards, hedges, moors, "
              "birch woods, tide pools, old walls, gravel banks, barns, oak woods, springs, thickets, ruins")
MONTHS = words("Icemonth, Thawmonth, Seedmonth, Budmonth, Haymonth, Sunmonth, Reapmonth, Applemonth, Fogmonth, "
               "Darkmonth")
NUMBERS = words("two, three, four, five, six, seven, eight, nine, ten, twelve")
INGREDIENTS = words("barley, beans, cabbage, carrots, cheese, chestnuts, eel, eggs, goat, leeks, lentils, millet, "
                    "mushrooms, mutton, nettles, oats, onions, pears, plums, pork, rye, trout, turnips, walnuts")
HOURS = words("at dawn, at dusk, at night, at noon, after rain, before storms, in moonlight, in fog")
CLASSES = words("bird, fish, lizard, beetle, moth, deer, fox, frog, crab, otter, snail, goat, owl, hare, bat, eel, "
                "heron, weasel")
TRADES = words("weaver, painter, sailor, surgeon, poet, mason, potter, judge, miller, singer, farmer, soldier, baker, "
               "carpenter, astronomer, printer, smith, gardener, merchant, teacher, actor, shepherd, engineer, "
               "botanist")
CRAFTS = words("weaving, pottery, glass, ropes, boats, clocks, paper, bells, cheese, carpets, knives, dyes, saddles, "
               "candles, furniture, lace, masks, barrels, kites, violins")
LANDMARKS = words("stone bridge, clock tower, round temple, salt market, castle, white lighthouse, water mill, old "
                  "library, iron gate, hanging garden, bell house, long pier, horse fountain, glass hall, grain tower, "
                  "chain ferry")

WORDS = {
    "adj": words("old, small, quiet, famous, narrow, broad, busy, pleasant, strange, sturdy, simple, careful, "
                 "stubborn, modest, cheerful, splendid, plain, humble, curious, peculiar, graceful, crooked, solemn, "
                 "sleepy, draughty"),
    "adv": words("often, usually, sometimes, rarely, always, slowly, quickly, quietly, gladly, carefully, seldom, "
                 "mostly, steadily, openly, patiently, reluctantly"),
    "weather": words("rain, snow, wind, fog, frost, hail, heat, mist, thunder, drizzle, sleet"),
    "disaster": words("fire, flood, storm, drought, plague, siege, famine, landslide, earthquake, harsh winter"),
    "building": words("mill, bridge, school, market hall, granary, bath house, tower, chapel, library, harbour, wall, "
                      "inn, hospital, theatre, foundry, lighthouse, tannery, observatory"),
    "thing": words("rope, lamp, knife, boat, cart, saddle, kettle, ladder, blanket, map, drum, axe, lantern, basket, "
                   "compass, flute, mirror, umbrella, telescope, wheelbarrow"),
    "goods": words("wool, salt, timber, honey, iron, cloth, grain, fish, leather, candles, wine, paper, pottery, "
                   "glass, amber, copper, rope, soap, furs, spices, ink, tin"),
    "people": words("farmers, weavers, sailors, merchants, shepherds, children, monks, soldiers, travellers, "
                    "fishermen, hunters, pilgrims, scholars, millers, masons, widows, apprentices, beekeepers"),
    "office": words("mayor, bailiff, abbot, governor, judge, guild master, captain, duke, steward, treasurer"),
    "scholar": words("one writer, a local historian, an early survey, the guild book, the town chronicle, a later "
                     "study, a letter, the tax roll, a traveller, an unsigned pamphlet"),
    "place": words("the market, the river, the old gate, the north road, the hill, the square, the church, the "
                   "harbour, the forest edge, the mill pond, the lower town, the ferry, the quarry, the vineyards"),
    "feeling": words("happy, tired, surprised, hungry, curious, disappointed, delighted, nervous, grateful, bored, "
                     "proud, homesick"),
    "ingredient": INGREDIENTS, "colour_word": COLOURS, "home_word": HOMES, "month": MONTHS, "number": NUMBERS,
    "trade_word": TRADES, "hour_word": HOURS,
    "ordinal": words("first, second, third, fourth, fifth, sixth, seventh, ninth, only"),
}

# ----------------------------------------------------------------------------------------------------- kinds and facts
# A kind has a count, a subject of the exams, lead sentences, sections (heading, facts told there) and facts: (values,
# question, yes-no question, sentence). Values are a list, the name of another kind, a range of numbers, or "region",
# "mountain" or "title" (World.fact_values). {v} is the value, {subj} the entity or a pronoun, {its} the possessive.

KINDS = {
    "creature": dict(
        count=260, subject="field_zoology",
        lead=["the {name} is a [small|large|slender|shy|common|rare|sturdy|well known] {class} of {region}[|, and [one "
                "of|perhaps] the most [familiar|elusive] animals of its {home}]."],
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
                     "{subj} lives in {v}[|, [often|rarely] [near|far from] {place}|, where {weather} is common|, "
                       "never far from water]."),
            "diet": (words("snails, beetles, moss, acorns, fish, berries, moths, roots, eggs, seeds, worms, frogs, "
                           "honey, bark, mushrooms, crabs, ants, grass, spiders, plums"), "What does the {name} eat?",
                     "does the {name} eat {v}",
                     "{subj} [eats|feeds on|lives on|hunts for|is fond of] {v}[|, {number} or more a day| in {month}|, "
                       "and [seldom|rarely] anything else]."),
            "sound": (words("whistle, croak, hum, click, bark, hiss, rattle, chirp, howl, purr, squeak, drumming"),
                      "What sound does the {name} make?", "does the {name} make a {v}",
                      "{its} [call|voice] is a [low |sharp |long |]{v}[|, heard {0-9} times an hour|, which {people} "
                        "know well]."),
            "young": (NUMBERS, "How many young does the {name} have?", "does the {name} have {v} young",
                      "{subj} has {v} young [each year|in {month}|at a time|every second year][|, which stay for "
                        "{number} weeks]."),
            "hour": (HOURS, "When is the {name} active?", "is the {name} active {v}",
                     "{subj} [is active|leaves its nest|feeds|can be seen] {v}[|, and sleeps the rest of the day]."),
            "region": ("region", "In which region is the {name} found?", "is the {name} found in {v}",
                       "{subj} is [found in|native to|known only from] {v}[|, and [some|{number}] pairs [reached|were "
                         "brought to] {region_word} in {year}]."),
        }),
    "plant": dict(
        count=160, subject="garden_botany",
        lead=["the {name} is a [low|tall|climbing|hardy|thorny|common|rare] plant with {colour} flowers[|, grown for "
                "{use}| that grows in {home}]."],
        sections=[("Description", ["colour", "smell", "height"]), ("Distribution", ["home", "region"]),
                  ("Uses", ["use", "season"]), ("History", [])],
        facts={
            "colour": (COLOURS, "What colour are the flowers of the {name}?", "are the flowers of the {name} {v}",
                       "{its} flowers are {v}[| and {adj}| with {number} petals|, [turning|fading to] {colour_word} "
                         "after {weather}]."),
            "home": (HOMES, "Where does the {name} grow?", "does the {name} grow in {v}",
                     "{subj} grows in {v}[|, [mostly|often] [near|above|below] {place}|, and dislikes {weather}]."),
            "season": (MONTHS, "In which month does the {name} bloom?", "does the {name} bloom in {v}",
                       "{subj} [blooms|flowers|opens] in {v}[|, or {number} weeks later in [cold|dry] years]."),
            "use": (words("tea, rope, dye, soap, bread, paper, ink, baskets, candles, beer, oil, medicine, glue, hats, "
                          "perfume, brooms"), "What is made from the {name}?", "is {v} made from the {name}",
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
    "town": dict(
        count=200, subject="world_geography",
        lead=["{name} is a [town|market town|walled town|port] in {region}, on the [banks of the |]{stream}[|, "
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
                           "[the dish called {v} comes from {subj_}|{subj} is the home of {v}][|, eaten [mainly |]in "
                             "{month}|, a dish of {people}]."),
            "festival": (MONTHS, "In which month is the festival of {name}?", "is the festival of {name} held in {v}",
                         "{its} [festival|great fair] is [held|kept] in {v}[|, and lasts {number} days|, with {goods} "
                           "and music]."),
            "landmark": (LANDMARKS, "What is the landmark of {name}?", "is the landmark of {name} the {v}",
                         "{its} [landmark|pride|best known sight] is the {v}[|, built in {year}|, [repaired|painted "
                           "{colour_word}] after the {disaster}]."),
        }),
    "person": dict(
        count=300, subject="great_lives",
        lead=["{name} ([born in|from] {born}) was a {adj} {trade} [of|from] {birthplace}[|, [remembered|known] for "
                "{work}|, a pupil of {teacher}]."],
        sections=[("Early life", ["born", "birthplace", "teacher"]), ("Career", ["trade", "work"]),
                  ("Personal life", ["instrument", "pet"]), ("Legacy", [])],
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
                           "Which instrument did {name} play?", "did {name} play the {v}",
                           "{subj} played the {v}[|, {adv} [in company|alone]|, and owned {number} of them]."),
            "pet": ("creature", "Which animal did {name} keep?", "did {name} keep a {v}",
                    "{subj} kept a [tame |]{v}[| in {its} [kitchen|garden|workshop]|, which outlived {number} "
                      "[cats|servants]]."),
        }),
    "dish": dict(
        count=120, subject="cookery",
        lead=["{name} is a [thick|thin|cold|simple|rich|festive] [dish|soup|stew|pie|pudding] of {base}[|, "
                "[common|popular] in {region}| with a {taste} taste]."],
        sections=[("Preparation", ["base", "taste", "vessel"]), ("History", ["region"]),
                  ("Serving", ["served", "occasion"])],
        facts={
            "base": (INGREDIENTS, "What is {name} made of?", "is {name} made of {v}",
                     "{subj} is made [of|with|from] {v}[| and {ingredient}|, cooked for {number} hours|, with {2-9} "
                       "spoons of {ingredient}]."),
            "taste": (words("sweet, sour, salty, bitter, smoky, peppery, nutty, mild, sharp, earthy"),
                      "How does {name} taste?", "does {name} taste {v}",
                      "{subj} tastes {v}[| and a little {adj}|, [more so|less so] in {month}|, unless {ingredient} "
                        "[is|are] added]."),
            "vessel": (words("clay pot, iron pan, copper kettle, wooden tub, stone oven, glass jar, tin mould, wicker "
                             "steamer"), "What is {name} cooked in?", "is {name} cooked in a {v}",
                       "{subj} is [cooked|made|prepared] in a {v}[|, {adv} over a low fire]."),
            "served": (words("bread, butter, cream, pickles, cider, salt, rice, jam, mustard, herbs, beer, milk"),
                       "What is {name} served with?", "is {name} served with {v}",
                       "{subj} is served with {v}[|, or with {ingredient} for [guests|children]]."),
            "occasion": (words("weddings, funerals, harvest, fairs, sick beds, birthdays, journeys, fast days"),
                         "When is {name} eaten?", "is {name} eaten at {v}",
                         "{subj} is eaten at {v}[|, [chiefly|above all] among {people}]."),
            "region": ("region", "From which region does {name} come?", "does {name} come from {v}",
                       "{subj} comes from {v}[|, and reached {town} in {year}|, though {region_word} claims it too]."),
        }),
    "river": dict(
        count=60, subject="world_geography",
        lead=["the {name} is a [river|slow river|swift river|broad river] [in|of] {region}, rising on {source}[| and "
                "ending in {mouth}]."],
        sections=[("Course", ["source", "mouth", "length"]), ("Nature", ["animal", "region"]), ("Trade", [])],
        facts={
            "source": ("mountain", "Where does the {name} rise?", "does the {name} rise on {v}",
                       "{subj} rises on {v}[|, {3-40} miles from {town}|, from {number} springs]."),
            "mouth": (words("the sea, Lake Omber, the Grey Marsh, Lake Tolva, the Salt Flats, Lake Issen, the Long "
                            "Bay, the Deep Fen"), "Where does the {name} end?", "does the {name} end in {v}",
                      "{subj} [ends in|flows into|reaches] {v}[|, after {number} [bends|falls]]."),
            "length": ("21-399", "How many miles long is the {name}?", "is the {name} {v} miles long",
                       "{subj} is {v} miles long[|, of which {3-20} are [navigable|under ice in {month}]]."),
            "animal": ("creature", "Which animal lives along the {name}?", "does the {v} live along the {name}",
                       "the {v} lives along {subj_}[|, in {home_word}|, [more|fewer] each year]."),
            "region": ("region", "Through which region does the {name} flow?", "does the {name} flow through {v}",
                       "{subj} flows through {v}[|, past {town}|, [once|long] its border]."),
        }),
    "stone": dict(
        count=60, subject="mineralogy",
        lead=["{name} is a [hard|soft|heavy|brittle|clear] {colour} stone [found|quarried|mined] in {region}[|, used "
                "for {use}]."],
        sections=[("Properties", ["colour", "hardness"]), ("Mining", ["region"]), ("Uses", ["use"])],
        facts={
            "colour": (COLOURS, "What colour is {name}?", "is {name} {v}",
                       "{subj} is {v}[|, with {colour_word} [veins|spots]|, [duller|brighter] when wet]."),
            "hardness": ("1-9", "What is the hardness of {name}?", "is the hardness of {name} {v}",
                         "{its} hardness is {v}[|, about that of [glass|bone|slate]]."),
            "use": (words("beads, roofs, mills, knives, lamps, floors, rings, statues, whetstones, buttons"),
                    "What is {name} used for?", "is {name} used for {v}",
                    "{subj} is used for {v}[|, and [once|rarely] for {building} walls|, at {3-90} pence a pound]."),
            "region": ("region", "In which region is {name} found?", "is {name} found in {v}",
                       "{subj} is found in {v}[|, [chiefly|only] near {town}]."),
        }),
}

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
        "[trade|dealings] in {goods} and {goods} [grew|failed|returned] [under|after] {friend}[|, while {people} moved "
          "to {town}].",
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


# ---------------------------------------------------------------------------------------------------------------- world

@lru_cache(maxsize=None)
def tail_weights(n, power=0.8):
    """Cumulative weights of a long-tailed (Zipf) choice among n."""
    return list(accumulate((i + 2.0) ** -power for i in range(n)))


def pick(rng, items):
    """Long-tailed choice: early items are frequent."""
    weights = tail_weights(len(items))
    return items[bisect(weights, rng.random() * weights[-1])]


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
        for kind, info in KINDS.items():
            for _ in range(info["count"]):
                area = rng.randrange(len(SOUNDS))
                self.entities[kind].append({"kind": kind, "name": self.entity_name(rng, kind, area), "area": area,
                                            "she": rng.random() < 0.5})
        self.values = {(kind, fact): self.fact_values(rng, kind, fact)
                       for kind, info in KINDS.items() for fact in info["facts"]}
        for kind, info in KINDS.items():
            for entity in self.entities[kind]:
                for fact, (source, *_) in info["facts"].items():
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

    def entity_name(self, rng, kind, area):
        """An unused name for an entity of a kind that belongs to a region."""
        if kind == "person":
            while True:
                name = rng.choice(self.first_names[area::8]) + " " + rng.choice(self.surnames[area::8])
                if name not in self.used:
                    self.used.add(name)
                    return name
        if kind == "town":
            return self.new_name(rng, area, 1, 2, rng.choice(SOUNDS[area][3]))
        name = self.new_name(rng, area, 1, 2)
        return name if kind == "river" else name.lower()

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
