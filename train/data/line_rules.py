"""The rules of grammar by which `line_questions.py` asks about a sentence: its pattern, the questions, their answers.

Written for this project, most special first: the first pattern that a sentence fits is its rule.
"""


class Rule:
    """A pattern of a sentence; questions and answers, in turn, with its groups as {0}, {1}. Facts of one topic never meet.

    `why`: reasons, for when they are asked.
    """

    def __init__(self, topic: str, pattern: str, *texts: str, why: str = ""):
        self.topic, self.pattern = topic, pattern
        self.why = why.split(" | ") if why else []
        split = [text.split(" | ") for text in texts]
        self.blocks = list(zip(split[::2], split[1::2], strict=True))


ANIMAL = r"(?:dog|cat|puppy|kitten|horse|rabbit|parrot|bird|hamster|turtle|snake|lizard|goat|pig|fish|pony|poodle|labrador|husky|beagle|pug)"
THING = r"((?:\w+[' -]?){1,5}?)"
NAMED_PET = rf"(?:i (?:have|own|had)|we have) an? ((?:\w+ )?{ANIMAL})(?: who is|,)? (?:named|called|whose name is) (\w+)"
TRADE = (
    r"(an? (?:\w+ ){0,2}?\w*(?:er|or|ist|man|nurse|student|artist|soldier|chef|cook|mom|dad|vet))"
)
RELATION = r"(mother|mom|father|dad|brother|sister|son|daughter|boyfriend|girlfriend|grandmother|grandfather|uncle|aunt|cousin|best friend|roommate)"
SOME = r"(?!no )(?:\w+ ){1,3}?"
NEXT = r"(?: [\w']+){0,4}"
RULES = [
    Rule(
        "work",
        rf"i work (as|at|for|in) {THING}",
        "where do you work? | what do you do? | what is your job? | what do you do for a living?",
        "i work {0} {1}. | {0} {1}. | {0} {1}, most days. | i work {0} {1}, it pays the bills.",
        "do you work? | do you have a job? | do you work {0} {1}?",
        "yes, {0} {1}. | i do, {0} {1}. | yes, i work {0} {1}.",
        why="somebody has to do it. | it pays the bills. | i like the people there. | i wanted that as a child. | it suits me.",
    ),
    Rule(
        "trade",
        rf"i(?: a|')m {TRADE}",
        "who are you? | what are you? | what do you do? | tell me about yourself.",
        "i am {0}. | {0}, and happy. | me? {0}. | just {0}.",
        "are you {0}? | so you are {0}? | is it true that you are {0}?",
        "yes, i am {0}. | that's right, {0}. | yes, {0}. | i am, yes.",
        why="i always wanted to be {0}. | it runs in the family. | i am good at it. | i never wanted to be anything else.",
    ),
    Rule(
        "home",
        rf"i live (in|on|at|near|with) {THING}",
        "where do you live? | where is your home? | where can i find you?",
        "{0} {1}. | i live {0} {1}. | my home is {0} {1}.",
        "do you live {0} {1}? | you live {0} {1}, right?",
        "yes, {0} {1}. | i do. | yes, i live {0} {1}.",
        why="it is quiet {0} {1}. | i never found a better place. | i could not afford anything else.",
    ),
    Rule(
        "origin",
        rf"i(?: am|'m| was born| grew up|'m originally) (?:from|in) {THING}",
        "where are you from? | where were you born? | where did you grow up?",
        "i am from {0}. | {0}. | from {0}, originally. | i come from {0}.",
        "are you from {0}?",
        "yes, i am from {0}. | yes, {0}. | i am.",
        why="my parents lived there. | one can not choose that. | that is where my family is from.",
    ),
    Rule(
        "pet",
        NAMED_PET,
        "do you have any pets? | do you have pets? | any animals at home? | tell me about your {0}.",
        "yes, a {0} named {1}. | my {0}, {1}. | i have a {0}, {1}. | yes, {1}, my {0}.",
        "what is your {0} called? | what's your {0}'s name? | does your {0} have a name? | whats your pets name",
        "{1}. | my {0} is called {1}. | the {0}'s name is {1}. | {1} is my {0}'s name.",
        why="{1} keeps me company. | the house was too empty. | i could not say no to that face.",
    ),
    Rule(
        "children",
        rf"(?:i|we) have ({SOME}(?:kids?|child|children|sons?|daughters?|boys?|girls?|twins|stepsons?|stepdaughters?))\b.*",
        "do you have kids? | do you have any children? | any kids? | are you a parent? | got kids?",
        "yes, {0}. | i do, {0}. | yes, i have {0}. | {0}, yes.",
    ),
    Rule(
        "children",
        r"my ((?:oldest |youngest |twin |little )?(?:sons?|daughters?|kids|children|boys|girls|twins)) .+",
        "do you have kids? | do you have any children? | any kids? | are you a parent? | got kids?",
        "yes, i do. | yes, and i am proud of my {0}. | of course, my {0}. | i do, i love my {0}.",
    ),
    Rule(
        "siblings",
        rf"i have ({SOME}(?:brothers?|sisters?|siblings?))\b.*",
        "do you have siblings? | do you have brothers or sisters? | any siblings? | did you grow up alone?",
        "i have {0}. | {0}. | i grew up with {0}. | {0}, and we fight a lot.",
        "are you an only child?",
        "no, i have {0}. | no, {0}. | not at all, i have {0}.",
    ),
    Rule(
        "siblings",
        r"i(?: am|'m) an only child",
        "do you have siblings? | do you have brothers or sisters? | any siblings? | do you have a sister? | do you have a brother?",
        "no, i am an only child. | no, it was just me. | none, i am an only child.",
    ),
    Rule(
        "pet",
        rf"(?:i|we) (?:have|own) ({SOME}{ANIMAL}s?)",
        "do you have any pets? | do you have pets? | any animals at home? | do you have a pet?",
        "yes, {0}. | i do, {0}. | yes, i have {0}. | {0}, yes.",
        why="the house was too empty. | i like the company. | animals are better than people.",
    ),
    Rule(
        "age",
        r"i(?: am|'m) (\d+)(?: years old)?",
        "how old are you? | what's your age? | how old r u | your age?",
        "i am {0}. | {0}. | {0} years old. | i'm {0}, and you?",
    ),
    Rule(
        "{1}",
        rf"i have (two|three|four|five|six|seven|eight|nine|ten|twelve|\d+) {THING}",
        "how many {1} do you have? | how many {1}?",
        "{0}. | {0} {1}. | i have {0} {1}. | {0}, and that is enough.",
        "do you have {1}?",
        "yes, {0} {1}. | yes, {0} of them. | i do, {0}.",
    ),
    Rule(
        "{0} {1}",
        rf"i (wear|drive|play|collect|eat|drink|read|watch|study|teach|speak|sell|ride|write|repair|build) {THING}",
        "do you {0} {1}? | is it true that you {0} {1}? | you {0} {1}, right?",
        "yes, i {0} {1}. | i do. | yes, a lot. | yes, i do, {1}.",
        "what do you {0}?",
        "i {0} {1}. | {1}. | {1}, mostly.",
        why="i am good at it. | somebody showed me when i was young. | it feels right.",
    ),
    Rule(
        "{0}",
        rf"i (?:never|do not|don't) ((?:wear|drive|play|eat|drink|smoke|read|watch|cook|sleep|travel|dance|swim|work|talk){NEXT})",
        "do you {0}? | do you ever {0}? | you {0}, right?",
        "no, i don't {0}. | no, never. | i never {0}. | no, i do not.",
        why="it is not for me. | i tried it once, and that was enough. | it never made me happy.",
    ),
    Rule(
        "past",
        r"i used to be (an? [\w' ]+)",
        "are you {0}? | are you still {0}? | so you are {0}?",
        "not anymore. | i used to be {0}. | not now, i was {0} once.",
        why="i needed something new. | it was time to go.",
    ),
    Rule(
        "have {0}",
        rf"i have ((?:an?|many|several) {THING})",
        "do you have {0}? | you have {0}? | is it true that you have {0}? | really, {0}?",
        "yes, i have {0}. | i do, {0}. | yes, that is true, {0}. | yes i do.",
    ),
    Rule(
        "like {0}",
        rf"i (?:really )?(?:like|love|enjoy) ((?:to )?{THING})",
        "what do you like? | what do you enjoy? | what makes you happy?",
        "i love {0}. | i like {0}. | {0} is what i love. | i really like {0}.",
        "do you like {0}? | do you really like {0}?",
        "yes, i love {0}. | yes, a lot. | i do, very much. | yes, i like {0}.",
        "do you hate {0}?",
        "no, i love {0}. | not at all, i like {0}.",
        why="it makes me happy. | nothing calms me more. | i grew up with it. | life would be dull without it. | it takes my mind off things.",
    ),
    Rule(
        "like {0}",
        rf"i (?:really )?(?:hate|don't like|do not like|can't stand|dislike) ((?:to )?{THING})",
        "do you like {0}? | are you fond of {0}? | you love {0}, right?",
        "no, i hate {0}. | not at all. | no, i don't like {0}. | no, i can't stand {0}.",
        "what do you hate? | what don't you like?",
        "i hate {0}. | {0}. | i don't like {0}.",
        why="i had too much of {0} as a child. | it makes me angry. | i never got used to it. | it gives me a headache. | who needs that?",
    ),
    Rule(
        "favorite {0}",
        rf"my favorite {THING} (?:is|are) {THING}",
        "what is your favorite {0}? | what {0} do you like? | do you have a favorite {0}?",
        "{1}. | my favorite is {1}. | i like {1} best. | {1}, always.",
        why="nothing comes close to {1}. | {1} makes me smile. | i have liked {1} since i was little.",
    ),
    Rule(
        "can {0}",
        rf"i (?:can't|cannot|can not|never learned to) {THING}",
        "can you {0}? | do you know how to {0}?",
        "no, i can't {0}. | no, i never learned to. | sadly not. | no, i can not.",
        why="nobody ever showed me. | i tried once and gave up. | i have two left hands.",
    ),
    Rule(
        "fear",
        rf"i(?: am|'m) (?:afraid|scared|terrified) of {THING}",
        "what are you afraid of? | what scares you?",
        "i am afraid of {0}. | {0}. | {0} scare me.",
        "are you afraid of {0}? | do you like {0}?",
        "{0} scare me. | i am afraid of {0}.",
        why="something happened when i was small. | i dream of {0} at night. | my mother was scared of {0} as well.",
    ),
    Rule(
        "allergy",
        rf"i(?: am|'m) allergic to {THING}",
        "are you allergic to anything? | do you have an allergy? | what are you allergic to?",
        "i am allergic to {0}. | to {0}, yes. | {0}, sadly.",
    ),
    Rule(
        "relation",
        rf"my {RELATION} (?:is|works as) {TRADE}",
        "what does your {0} do? | what is your {0}'s job? | what does your {0} do for a living?",
        "my {0} is {1}. | {1}. | {1}, that is my {0}. | my {0} works as {1}.",
        "are you {1}? | so you are {1}? | do you work as {1}?",
        "no, my {0} is. | not me, my {0} is {1}. | no, that is my {0}.",
    ),
    Rule(
        "spouse",
        rf"my (husband|wife) (?:is|works as) {TRADE}",
        "are you married? | do you have a {0}? | are you a married person?",
        "yes, my {0} is {1}. | yes, and my {0} is {1}. | yes, i am married.",
        "what does your {0} do? | what is your {0}'s job?",
        "my {0} is {1}. | {1}. | my {0} works as {1}.",
        "are you {1}? | so you are {1}?",
        "no, my {0} is {1}. | not me, my {0} is {1}. | no, that is my {0}.",
    ),
    Rule(
        "spouse",
        r"(?:i(?: am|'m) (?:happily )?married.*|my (?:husband|wife) .+)",
        "are you married? | do you have somebody at home?",
        "yes, i am married. | yes, married. | i am. | yes, happily.",
    ),
    Rule(
        "spouse",
        r"i(?: am|'m) (?:single|divorced|not married)",
        "are you married? | do you have a husband? | do you have a wife?",
        "no, i am not married. | no, there is nobody. | not me, no.",
    ),
]
