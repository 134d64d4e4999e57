"""How instructions are worded in twelve languages, and what each calls the others: ours, written for this set.

`{within}` stands for the language asked for as it follows a verb (`in English`, `auf Englisch`), `{word}` for a word
that the answer is to contain, `___` for a gap.
"""

from typing import NamedTuple

__all__ = ["GAP", "PHRASES", "Phrases"]

GAP = "___"
"""What stands where a word was taken out."""


class Phrases(NamedTuple):
    """One language's instructions, two or more wordings for each task.

    Attributes:
        names: tag -> what this language calls it.
        within: tag -> the same as it stands in an instruction.
        continuing: go on with a text.
        cloze: find the word that is missing.
        identify: name the language of a text.
        write: write in a language, with a word.
    """

    names: dict[str, str]
    within: dict[str, str]
    continuing: tuple[str, ...]
    cloze: tuple[str, ...]
    identify: tuple[str, ...]
    write: tuple[str, ...]


_TAGS = ("en", "de", "fr", "es", "ru", "zh", "ja", "ar", "hi", "tr", "id", "ko")


def _phrases(names: str, within: str, *tasks: tuple[str, ...]) -> Phrases:
    """Return one language's phrases.

    Args:
        names: of the twelve languages in the order of the tags, separated by commas.
        within: the same for instructions, or one form with `{}` for the name.
        tasks: wordings of each task.
    """
    called = [name.strip() for name in names.split(",")]
    placed = [within.format(name) for name in called] if "{}" in within else [w.strip() for w in within.split(",")]
    return Phrases(dict(zip(_TAGS, called, strict=True)), dict(zip(_TAGS, placed, strict=True)), *tasks)


PHRASES = {
    "en": _phrases(
        "English, German, French, Spanish, Russian, Chinese, Japanese, Arabic, Hindi, Turkish, Indonesian, Korean",
        "in {}",
        ("Continue this text.", "Write how the following text goes on."),
        (
            "Which word is missing at ___? Answer with that word only.",
            "Fill the gap ___ in this text; give only the missing word.",
        ),
        ("Which language is this text written in?", "Name the language of the following text."),
        ("Write a sentence {within} that contains “{word}”.", "Give me a short text {within} using “{word}”."),
    ),
    "de": _phrases(
        "Englisch, Deutsch, Französisch, Spanisch, Russisch, Chinesisch, Japanisch, Arabisch, Hindi, Türkisch, "
        "Indonesisch, Koreanisch",
        "auf {}",
        ("Setze diesen Text fort.", "Wie geht der folgende Text weiter?"),
        (
            "Welches Wort fehlt an der Stelle ___? Antworte nur mit diesem Wort.",
            "Ergänze die Lücke ___ im Text und nenne nur das fehlende Wort.",
        ),
        ("In welcher Sprache ist dieser Text geschrieben?", "Nenne die Sprache des folgenden Textes."),
        (
            "Schreibe einen Satz {within}, in dem „{word}“ vorkommt.",
            "Gib mir {within} einen kurzen Text mit „{word}“.",
        ),
    ),
    "fr": _phrases(
        "anglais, allemand, français, espagnol, russe, chinois, japonais, arabe, hindi, turc, indonésien, coréen",
        "en {}",
        ("Continue ce texte.", "Écris la suite du texte suivant."),
        (
            "Quel mot manque à la place de ___ ? Réponds uniquement par ce mot.",
            "Complète le texte en remplaçant ___ ; donne seulement le mot manquant.",
        ),
        ("Dans quelle langue ce texte est-il écrit ?", "Indique la langue du texte suivant."),
        ("Écris une phrase {within} qui contient « {word} ».", "Donne-moi un court texte {within} avec « {word} »."),
    ),
    "es": _phrases(
        "inglés, alemán, francés, español, ruso, chino, japonés, árabe, hindi, turco, indonesio, coreano",
        "en {}",
        ("Continúa este texto.", "Escribe cómo sigue el siguiente texto."),
        (
            "¿Qué palabra falta en ___? Responde solo con esa palabra.",
            "Completa el hueco ___ del texto y da únicamente la palabra que falta.",
        ),
        ("¿En qué idioma está escrito este texto?", "Di en qué lengua está el siguiente texto."),
        ("Escribe una frase {within} que contenga «{word}».", "Dame un texto breve {within} con «{word}»."),
    ),
    "ru": _phrases(
        "английский, немецкий, французский, испанский, русский, китайский, японский, арабский, хинди, турецкий, "
        "индонезийский, корейский",
        "на английском языке, на немецком языке, на французском языке, на испанском языке, на русском языке, "
        "на китайском языке, на японском языке, на арабском языке, на хинди, на турецком языке, "
        "на индонезийском языке, на корейском языке",
        ("Продолжи этот текст.", "Напиши, как продолжается следующий текст."),
        (
            "Какое слово пропущено на месте ___? Ответь только этим словом.",
            "Заполни пропуск ___ в тексте: назови только недостающее слово.",
        ),
        ("На каком языке написан этот текст?", "Назови язык следующего текста."),
        (
            "Напиши предложение {within} со словом «{word}».",
            "Составь короткий текст {within}, в котором есть «{word}».",
        ),
    ),
    "zh": _phrases(
        "英语, 德语, 法语, 西班牙语, 俄语, 中文, 日语, 阿拉伯语, 印地语, 土耳其语, 印度尼西亚语, 韩语",
        "用{}",
        ("请续写下面的文字。", "下面这段话接下来怎么写？"),
        ("下文中 ___ 处缺少什么词？只回答这个词。", "请填补下文的空缺 ___，只写出缺少的词。"),
        ("下面的文字是用什么语言写的？", "请说出下文使用的语言。"),
        ("请{within}写一个包含“{word}”的句子。", "请{within}写一段带有“{word}”的短文。"),
    ),
    "ja": _phrases(
        "英語, ドイツ語, フランス語, スペイン語, ロシア語, 中国語, 日本語, アラビア語, ヒンディー語, "
        " トルコ語, インドネシア語, 韓国語",
        "{}で",
        ("この文章の続きを書いてください。", "次の文章はどのように続きますか。"),
        (
            "___ に入る言葉は何ですか。その言葉だけを答えてください。",
            "次の文の空欄 ___ を埋めてください。抜けている語だけを書いてください。",
        ),
        ("この文章は何語で書かれていますか。", "次の文章の言語を答えてください。"),
        ("「{word}」を含む文を{within}書いてください。", "「{word}」を使って、{within}短い文章を書いてください。"),
    ),
    "ar": _phrases(
        "الإنجليزية, الألمانية, الفرنسية, الإسبانية, الروسية, الصينية, "
        " اليابانية, العربية, الهندية, التركية, الإندونيسية, الكورية",
        "ب{}",
        ("أكمل هذا النص.", "اكتب تتمة النص التالي."),
        (
            "ما الكلمة الناقصة في موضع ___؟ أجب بهذه الكلمة فقط.",
            "املأ الفراغ ___ في النص واذكر الكلمة الناقصة وحدها.",
        ),
        ("بأي لغة كُتب هذا النص؟", "اذكر لغة النص التالي."),
        ("اكتب جملة {within} تحتوي على «{word}».", "اكتب لي نصا قصيرا {within} فيه «{word}»."),
    ),
    "hi": _phrases(
        "अंग्रेज़ी, जर्मन, फ़्रेंच, स्पेनिश, रूसी, चीनी, जापानी, अरबी, हिन्दी, तुर्की, इंडोनेशियाई, कोरियाई",
        "{} में",
        ("इस पाठ को आगे बढ़ाइए।", "लिखिए कि नीचे दिया गया पाठ आगे कैसे चलता है।"),
        (
            "___ की जगह कौन-सा शब्द छूटा है? केवल वही शब्द लिखिए।",
            "पाठ में खाली स्थान ___ भरिए और केवल छूटा हुआ शब्द बताइए।",
        ),
        ("यह पाठ किस भाषा में लिखा है?", "नीचे दिए गए पाठ की भाषा बताइए।"),
        ("{within} एक वाक्य लिखिए जिसमें “{word}” आए।", "“{word}” का प्रयोग करते हुए {within} एक छोटा पाठ लिखिए।"),
    ),
    "tr": _phrases(
        "İngilizce, Almanca, Fransızca, İspanyolca, Rusça, Çince, Japonca, Arapça, Hintçe, Türkçe, Endonezce, Korece",
        "{}",
        ("Bu metni devam ettir.", "Aşağıdaki metnin devamını yaz."),
        (
            "___ yerinde hangi sözcük eksik? Yalnızca o sözcüğü yaz.",
            "Metindeki ___ boşluğunu doldur; sadece eksik sözcüğü ver.",
        ),
        ("Bu metin hangi dilde yazılmış?", "Aşağıdaki metnin dilini söyle."),
        ("İçinde “{word}” geçen {within} bir cümle yaz.", "“{word}” kullanarak {within} kısa bir metin yaz."),
    ),
    "id": _phrases(
        "bahasa Inggris, bahasa Jerman, bahasa Prancis, bahasa Spanyol, bahasa Rusia, bahasa Mandarin, bahasa Jepang, "
        "bahasa Arab, bahasa Hindi, bahasa Turki, bahasa Indonesia, bahasa Korea",
        "dalam {}",
        ("Lanjutkan teks ini.", "Tuliskan kelanjutan teks berikut."),
        (
            "Kata apa yang hilang pada ___? Jawab dengan kata itu saja.",
            "Isi bagian kosong ___ dalam teks dan sebutkan hanya kata yang hilang.",
        ),
        ("Teks ini ditulis dalam bahasa apa?", "Sebutkan bahasa dari teks berikut."),
        ("Tulis satu kalimat {within} yang memuat “{word}”.", "Buatlah teks pendek {within} dengan kata “{word}”."),
    ),
    "ko": _phrases(
        "영어, 독일어, 프랑스어, 스페인어, 러시아어, 중국어, 일본어, 아랍어, 힌디어, 튀르키예어, 인도네시아어, 한국어",
        "{}로",
        ("이 글을 이어서 써 주세요.", "다음 글이 어떻게 이어지는지 써 주세요."),
        ("___ 자리에 빠진 단어는 무엇입니까? 그 단어만 답해 주세요.", "다음 글의 빈칸 ___에 들어갈 단어만 써 주세요."),
        ("이 글은 어떤 언어로 쓰여 있습니까?", "다음 글의 언어를 말해 주세요."),
        ("“{word}”이(가) 들어간 문장을 {within} 써 주세요.", "“{word}”을(를) 사용해 {within} 짧은 글을 써 주세요."),
    ),
}
"""Tag -> how its instructions are worded."""
